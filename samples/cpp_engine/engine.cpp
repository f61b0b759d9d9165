#include "engine.hpp"

#include <cmath>
#include <limits>
#include <sstream>

#include "weights.hpp"

namespace sait {
namespace {

struct Kind {
    const char* dtype;
    std::size_t size;
};

Kind kind_of(nvinfer1::DataType type) {
    switch (type) {
        case nvinfer1::DataType::kFLOAT: return {"float32", 4};
        case nvinfer1::DataType::kHALF: return {"float16", 2};
        case nvinfer1::DataType::kBF16: return {"bfloat16", 2};
        case nvinfer1::DataType::kINT32: return {"int32", 4};
        case nvinfer1::DataType::kINT64: return {"int64", 8};
        case nvinfer1::DataType::kBOOL: return {"bool", 1};
        default: throw Failure("this sample knows no tensors of TensorRT's type " + std::to_string(int(type)));
    }
}

Shape shape_of(const nvinfer1::Dims& dims) { return {dims.d, dims.d + (dims.nbDims > 0 ? dims.nbDims : 0)}; }

nvinfer1::Dims dims_of(const Shape& shape) {
    nvinfer1::Dims dims{};
    dims.nbDims = static_cast<std::int32_t>(shape.size());
    for (std::size_t i = 0; i < shape.size(); ++i) dims.d[i] = shape[i];
    return dims;
}

// Whether a shape is one of those that an engine's own shape stands for.
bool is_one_of(const Shape& shape, const Shape& pattern) {
    if (shape.size() != pattern.size()) return false;
    for (std::size_t i = 0; i < shape.size(); ++i) {
        if (pattern[i] >= 0 && shape[i] != pattern[i]) return false;
    }
    return true;
}

std::string in_one_line(const std::string& message) {
    std::istringstream words(message);
    std::string line, word;
    while (words >> word) line += (line.empty() ? "" : " ") + word;
    return line.substr(0, 300);
}

}  // namespace

void Log::log(Severity severity, const char* message) noexcept {
    if (severity > Severity::kERROR) return;
    const std::lock_guard<std::mutex> lock(mutex_);
    if (first_.empty()) first_ = message;
}

std::string Log::first_error() {
    const std::lock_guard<std::mutex> lock(mutex_);
    const std::string line = in_one_line(first_);
    first_.clear();
    return line.empty() ? "TensorRT gives no reason" : line;
}

Runtime::Runtime(HostCode host_code) : native_(nvinfer1::createInferRuntime(log_)) {
    if (!native_) throw Failure("TensorRT cannot start: " + log_.first_error());
    native_->setEngineHostCodeAllowed(host_code == HostCode::allowed);
}

Part::Part(Runtime& runtime, const std::filesystem::path& plan, const std::filesystem::path& weights)
    : log_(runtime.log()), name_(plan.filename().string()) {
    const Bytes bytes = read_bytes(plan);
    engine_.reset(runtime.native().deserializeCudaEngine(bytes.data(), bytes.size()));
    if (!engine_) fail("cannot be deserialised, it may be damaged or built for another GPU or TensorRT");
    if (!weights.empty()) put_weights_in(*engine_, log_, name_, weights);
    context_.reset(engine_->createExecutionContext());
    if (!context_) fail("cannot be made ready to run");
    for (int i = 0; i < engine_->getNbIOTensors(); ++i) {
        const char* tensor = engine_->getIOTensorName(i);
        const bool given = engine_->getTensorIOMode(tensor) == nvinfer1::TensorIOMode::kINPUT;
        const Kind kind = kind_of(engine_->getTensorDataType(tensor));
        (given ? inputs_ : outputs_).push_back({tensor, kind.dtype, shape_of(engine_->getTensorShape(tensor))});
    }
}

const Tensor* Part::find(const std::string& tensor) const {
    for (const auto* tensors : {&inputs_, &outputs_}) {
        for (const Tensor& each : *tensors) {
            if (each.name == tensor) return &each;
        }
    }
    return nullptr;
}

void Part::set_shapes(const Shapes& shapes, const Stream& stream) {
    for (const Tensor& input : inputs_) {
        const Shape& shape = shapes.at(input.name);
        if (!is_one_of(shape, input.shape)) {
            throw Failure(name_ + " takes " + input.name + " of shape " + text(input.shape) + ", not " + text(shape));
        }
    }
    const int profile = choose_profile(shapes);
    if (profile != profile_ && !context_->setOptimizationProfileAsync(profile, stream.handle())) {
        fail("refuses profile " + std::to_string(profile));
    }
    profile_ = profile;
    for (const Tensor& input : inputs_) {
        const Shape& shape = shapes.at(input.name);
        if (!context_->setInputShape(input.name.c_str(), dims_of(shape))) {
            fail("refuses " + input.name + " of shape " + text(shape));
        }
    }
}

// TensorRT tunes kernels for a profile's optimum: of those that take the shapes, the one whose optimum differs least.
int Part::choose_profile(const Shapes& shapes) const {
    int nearest = -1;
    double least = std::numeric_limits<double>::infinity();
    std::string refused;
    for (int profile = 0; profile < profiles(); ++profile) {
        double apart = 0;
        for (const Tensor& input : inputs_) apart += distance(input.name, shapes.at(input.name), profile, refused);
        if (apart < least) {
            nearest = profile;
            least = apart;
        }
    }
    if (nearest < 0) throw Failure("no profile of " + name_ + " takes " + refused + "; build it with a wider --batch");
    return nearest;
}

// How far a shape is from a profile's optimum on a scale of factors; infinite, and why, where the profile refuses it.
double Part::distance(const std::string& input, const Shape& shape, int profile, std::string& refused) const {
    using Select = nvinfer1::OptProfileSelector;
    const Shape low = shape_of(engine_->getProfileShape(input.c_str(), profile, Select::kMIN));
    const Shape optimum = shape_of(engine_->getProfileShape(input.c_str(), profile, Select::kOPT));
    const Shape high = shape_of(engine_->getProfileShape(input.c_str(), profile, Select::kMAX));
    double sum = 0;
    for (std::size_t i = 0; i < shape.size(); ++i) {
        if (shape[i] < low.at(i) || shape[i] > high.at(i)) {
            refused = input + " of shape " + text(shape) + ", but " + text(low) + " to " + text(high);
            return std::numeric_limits<double>::infinity();
        }
        sum += std::abs(std::log(static_cast<double>(shape[i]) / static_cast<double>(optimum.at(i))));
    }
    return sum;
}

Shape Part::shape(const std::string& tensor) const {
    const Shape found = shape_of(context_->getTensorShape(tensor.c_str()));
    for (std::int64_t size : found) {
        if (size < 0) fail("leaves the shape of " + tensor + " open, " + text(found));
    }
    return found;
}

std::size_t Part::bytes(const std::string& tensor) const {
    std::size_t total = kind_of(engine_->getTensorDataType(tensor.c_str())).size;
    for (std::int64_t size : shape(tensor)) total *= static_cast<std::size_t>(size);
    return total;
}

void Part::enqueue(const Addresses& addresses, const Stream& stream) {
    for (const auto* tensors : {&inputs_, &outputs_}) {
        for (const Tensor& tensor : *tensors) {
            if (!context_->setTensorAddress(tensor.name.c_str(), addresses.at(tensor.name))) {
                fail("refuses the memory for " + tensor.name);
            }
        }
    }
    if (!context_->enqueueV3(stream.handle())) fail("cannot be run");
}

void Part::fail(const std::string& what) const { throw Failure(name_ + " " + what + ": " + log_.first_error()); }

}  // namespace sait
