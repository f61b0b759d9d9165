#include "pipeline.hpp"

#include <algorithm>
#include <numeric>

namespace sait {
namespace {

constexpr const char* ANSWERS[] = {"logits", "embeddings", "counts", "token_features"};

}  // namespace

void* Memory::allocate(const std::string& tensor, std::size_t bytes) {
    buffers_.push_back(std::make_unique<DeviceBuffer>(bytes));
    return addresses_[tensor] = buffers_.back()->address();
}

Arrays Pipeline::run(const Arrays& given) {
    for (const char* name : {"rows", "cu_seqlens"}) {
        const bool missing = second_ != nullptr && first_.find(name) == nullptr;
        if (missing) throw Failure(first_.name() + " has no " + name + ": it is no stem");
    }
    start_first(given);
    if (second_ != nullptr) start_second();
    Arrays answers;
    download(first_, answers);
    if (second_ != nullptr) download(*second_, answers);
    stream_.wait();
    return answers;
}

void Pipeline::start_first(const Arrays& given) {
    Shapes shapes;
    for (const Tensor& input : first_.inputs()) {
        const auto found = given.find(input.name);
        const std::string takes = first_.name() + " takes " + input.name + " as " + input.dtype + ", ";
        if (found == given.end()) throw Failure(takes + "which the golden file lacks: is it another artifact's?");
        if (found->second.dtype != input.dtype) throw Failure(takes + "the golden file has " + found->second.dtype);
        shapes[input.name] = found->second.shape;
    }
    first_.set_shapes(shapes, stream_);
    for (const Tensor& input : first_.inputs()) {
        const Bytes& bytes = given.at(input.name).bytes;
        stream_.upload(memory_.allocate(input.name, bytes.size()), bytes.data(), bytes.size());
    }
    make_room(first_);
    first_.enqueue(memory_.addresses(), stream_);
}

// Nothing of the stem's is copied: the trunk reads its buffers, and `kept` is the front of its `rows`.
void Pipeline::start_second() {
    extents_ = read_extents();
    lanes_.resize(static_cast<std::size_t>(extents_->tokens));
    std::iota(lanes_.begin(), lanes_.end(), 0);
    const std::size_t bytes = lanes_.size() * sizeof(std::int32_t);
    stream_.upload(memory_.allocate("lanes", bytes), lanes_.data(), bytes);
    memory_.share("kept", "rows");
    Shapes shapes;
    for (const Tensor& input : second_->inputs()) {
        if (input.name == "kept") {
            shapes[input.name] = {extents_->rows};
        } else if (input.name == "lanes") {
            shapes[input.name] = {extents_->longest};
        } else {
            shapes[input.name] = across_seam(input);
        }
    }
    second_->set_shapes(shapes, stream_);
    make_room(*second_);
    second_->enqueue(memory_.addresses(), stream_);
}

void Pipeline::make_room(const Part& part) {
    for (const Tensor& output : part.outputs()) memory_.allocate(output.name, part.bytes(output.name));
}

Shape Pipeline::across_seam(const Tensor& input) const {
    const Tensor* source = first_.find(input.name);
    const std::string takes = second_->name() + " takes " + input.name + " as " + input.dtype + ", ";
    if (source == nullptr) throw Failure(takes + "which " + first_.name() + " lacks: they are of two engines");
    if (source->dtype != input.dtype) {
        throw Failure(takes + first_.name() + " gives " + source->dtype + ": they are of two engines");
    }
    return first_.shape(input.name);
}

// The one small copy. T is the last offset, W the largest difference of two.
Extents Pipeline::read_extents() {
    std::vector<std::int32_t> offsets(first_.bytes("cu_seqlens") / sizeof(std::int32_t));
    stream_.download(offsets.data(), memory_.addresses().at("cu_seqlens"), first_.bytes("cu_seqlens"));
    stream_.wait();
    const std::int64_t images = static_cast<std::int64_t>(offsets.size()) - 1;
    Extents extents{offsets.back(), 0, first_.shape("rows").at(0) / std::max<std::int64_t>(images, 1)};
    bool plausible = images >= 1 && offsets.front() == 0;
    for (std::size_t i = 1; i < offsets.size(); ++i) {
        const std::int64_t length = std::int64_t{offsets[i]} - offsets[i - 1];
        plausible = plausible && length >= 1 && length <= extents.tokens;
        extents.longest = std::max(extents.longest, length);
    }
    if (!plausible) throw Failure(first_.name() + " counted kept tokens that cannot be: check its selection");
    return extents;
}

void Pipeline::download(const Part& part, Arrays& answers) {
    for (const Tensor& output : part.outputs()) {
        if (std::find(std::begin(ANSWERS), std::end(ANSWERS), output.name) == std::end(ANSWERS)) continue;
        Array& answer = answers[output.name];
        answer = {output.dtype, part.shape(output.name), Bytes(part.bytes(output.name))};
        stream_.download(answer.bytes.data(), memory_.addresses().at(output.name), answer.bytes.size());
    }
}

}  // namespace sait
