// Reads golden.npz: what numpy.savez writes, a zip archive of stored .npy files. Little-endian machines only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

namespace sait {

// What went wrong, in one line for the user.
class Failure : public std::runtime_error {
public:
    using std::runtime_error::runtime_error;
};

using Bytes = std::vector<unsigned char>;
using Shape = std::vector<std::int64_t>;

// An array in C order.
struct Array {
    std::string dtype;  // as NumPy calls it: float32, int32, uint8
    Shape shape;
    Bytes bytes;

    // Returns its elements; T has to be what dtype says.
    template <typename T>
    std::vector<T> values() const {
        std::vector<T> found(bytes.size() / sizeof(T));
        if (!found.empty()) std::memcpy(found.data(), bytes.data(), found.size() * sizeof(T));
        return found;
    }
};

using Arrays = std::map<std::string, Array>;

// Reads a whole file. Throws Failure where it cannot be read.
Bytes read_bytes(const std::filesystem::path& path);

// Reads every array of an archive, their checksums checked. Throws Failure where it is damaged, or compressed, or holds
// an array of another type than the three above.
Arrays read_npz(const std::filesystem::path& path, const std::string& hint = "export the artifact again");

// "[1, 3, 224, 224]"; an engine's own shape has -1 where a dimension is not fixed.
std::string text(const Shape& shape);

}  // namespace sait
