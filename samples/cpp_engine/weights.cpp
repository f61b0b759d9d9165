#include "weights.hpp"

#include <memory>
#include <utility>
#include <vector>

namespace sait {
namespace {

// An element type as write_weights.py calls it, and its bytes.
std::pair<std::string, std::size_t> kind_of(nvinfer1::DataType type) {
    switch (type) {
        case nvinfer1::DataType::kFLOAT: return {"float32", 4};
        case nvinfer1::DataType::kHALF: return {"float16", 2};
        case nvinfer1::DataType::kBF16: return {"bfloat16", 2};
        case nvinfer1::DataType::kFP8: return {"fp8", 1};
        case nvinfer1::DataType::kINT8: return {"int8", 1};
        case nvinfer1::DataType::kINT32: return {"int32", 4};
        case nvinfer1::DataType::kINT64: return {"int64", 8};
        case nvinfer1::DataType::kBOOL: return {"bool", 1};
        default: throw Failure("this sample knows no weights of TensorRT's type " + std::to_string(int(type)));
    }
}

// Names that a refitter lists: null of weights without one.
template <typename Lists>
std::vector<const char*> names(Lists lists) {
    std::vector<const char*> found(static_cast<std::size_t>(lists(0, nullptr)));
    if (!found.empty()) lists(static_cast<std::int32_t>(found.size()), found.data());
    return found;
}

}  // namespace

void put_weights_in(nvinfer1::ICudaEngine& engine, Log& log, const std::string& name,
                    const std::filesystem::path& file) {
    const Arrays weights = read_npz(file, "write it again: write_weights.py");
    const std::unique_ptr<nvinfer1::IRefitter> refitter(nvinfer1::createInferRefitter(engine, log));
    if (!refitter) throw Failure(name + " takes no weights: " + log.first_error());
    const auto lack = [&](const std::string& what) {
        return Failure(name + " asks for " + what + ", which " + file.string() + " lacks; write it for this engine");
    };
    for (const char* wanted : names([&](auto... list) { return refitter->getAllWeights(list...); })) {
        if (wanted == nullptr || *wanted == '\0') continue;
        const nvinfer1::Weights prototype = refitter->getWeightsPrototype(wanted);
        const auto [type, size] = kind_of(prototype.type);
        const auto found = weights.find(type + " " + wanted);
        const std::size_t bytes = size * static_cast<std::size_t>(prototype.count);
        if (found == weights.end() || found->second.bytes.size() != bytes) {
            throw lack(std::to_string(prototype.count) + " numbers of " + type + " " + wanted);
        }
        if (!refitter->setNamedWeights(wanted, {prototype.type, found->second.bytes.data(), prototype.count})) {
            throw Failure(name + " refuses weights " + wanted + ": " + log.first_error());
        }
    }
    const auto missing = names([&](auto... list) { return refitter->getMissingWeights(list...); });
    if (!missing.empty()) throw lack(missing.front() == nullptr ? "weights without a name" : missing.front());
    if (!refitter->refitCudaEngine()) throw Failure(name + " takes no weights: " + log.first_error());
}

}  // namespace sait
