// A whole engine on one batch: one file, or stem and trunk on shared buffers with one small copy between them.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cuda.hpp"
#include "engine.hpp"
#include "golden.hpp"

namespace sait {

// Device memory by the tensor it holds; stem and trunk share what crosses between them.
class Memory {
public:
    void* allocate(const std::string& tensor, std::size_t bytes);

    // Lets a tensor be the front of another's memory.
    void share(const std::string& tensor, const std::string& other) { addresses_[tensor] = addresses_.at(other); }

    const Addresses& addresses() const { return addresses_; }

private:
    std::vector<std::unique_ptr<DeviceBuffer>> buffers_;
    Addresses addresses_;
};

// What the host reads at the seam.
struct Extents {
    std::int64_t rows;     // kept by the whole batch: T
    std::int64_t longest;  // kept by its longest image: W
    std::int64_t tokens;   // of each image before: P+N
};

// Runs one batch. Its buffers fit that batch; a server would make them once, for the largest its profiles take.
class Pipeline {
public:
    Pipeline(Stream& stream, Part& first, Part* second) : stream_(stream), first_(first), second_(second) {}

    // Feeds the engine's inputs from arrays of their names, and returns its answers: logits or embeddings, and counts
    // and token_features where it gives them. Throws Failure where an input is missing or of another shape or type.
    Arrays run(const Arrays& given);

    // What stood at the seam of the last run, of an engine in two parts.
    const std::optional<Extents>& extents() const { return extents_; }

private:
    void start_first(const Arrays& given);
    void start_second();
    void make_room(const Part& part);
    Shape across_seam(const Tensor& input) const;
    Extents read_extents();
    void download(const Part& part, Arrays& answers);

    Stream& stream_;
    Part& first_;
    Part* second_;
    Memory memory_;
    std::vector<std::int32_t> lanes_;  // outlives its copy
    std::optional<Extents> extents_;
};

}  // namespace sait
