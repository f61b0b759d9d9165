// TensorRT's calls of samples/cpp_engine. Engines are lines of text, so that the sample's logic runs without a GPU.
//
// A plan lists what the part is, its tensors and its profiles:
//     part stem
//     input mass float32 -1
//     profile mass 1 : 4 : 8
//     weights float16 bias 5
// A further line "profile" for the same tensor belongs to the next profile. A plan with weights runs once it has them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <numeric>
#include <sstream>
#include <string>
#include <vector>

#include "cuda_runtime_api.h"

namespace nvinfer1 {

enum class DataType { kFLOAT, kHALF, kBF16, kINT32, kINT64, kBOOL, kINT8, kFP8 };
enum class TensorIOMode { kNONE, kINPUT, kOUTPUT };
enum class OptProfileSelector { kMIN, kOPT, kMAX };

struct Dims {
    std::int32_t nbDims = 0;
    std::int64_t d[8] = {};
};

class ILogger {
public:
    enum class Severity { kINTERNAL_ERROR, kERROR, kWARNING };
    virtual void log(Severity severity, const char* message) noexcept = 0;
    virtual ~ILogger() = default;
};

struct DoubleTensor {
    std::string name;
    bool given;
    DataType type;
    Dims shape;
    std::vector<Dims> spans;  // smallest, optimum, largest of each profile
};

struct Weights {
    DataType type;
    const void* values;
    std::int64_t count;
};

struct DoubleWeights {
    std::string name;
    Weights prototype;
    std::int64_t bytes;
    bool given = false;
};

// Memory that the stem was given: the trunk has to be given the same.
inline std::map<std::string, void*> stem_memory;

class IExecutionContext {
public:
    IExecutionContext(std::string part, std::vector<DoubleTensor> tensors, ILogger& logger)
        : part_(std::move(part)), tensors_(std::move(tensors)), logger_(logger) {}

    bool setOptimizationProfileAsync(std::int32_t profile, cudaStream_t stream) noexcept {
        profile_ = profile;
        return stream != nullptr;
    }

    bool setInputShape(const char* name, const Dims& dims) noexcept {
        shapes_[name] = dims;
        const auto& spans = find(name).spans;
        for (int i = 0; i < dims.nbDims; ++i) {
            if (dims.d[i] < spans.at(3 * profile_).d[i] || dims.d[i] > spans.at(3 * profile_ + 2).d[i]) return false;
        }
        return true;
    }

    Dims getTensorShape(const char* name) const noexcept {
        if (shapes_.count(name)) return shapes_.at(name);
        Dims dims = find(name).shape;
        const std::int64_t images = shapes_.at(part_ == "trunk" ? "guard" : "images").d[0];
        const bool seam = std::string(name) == "tokens" || std::string(name) == "rows";
        if (dims.d[0] < 0) dims.d[0] = seam ? images * TOKENS : std::string(name) == "cu_seqlens" ? images + 1 : images;
        return dims;
    }

    bool setTensorAddress(const char* name, void* address) noexcept {
        addresses_[name] = address;
        return address != nullptr;
    }

    bool enqueueV3(cudaStream_t stream) noexcept {
        std::fprintf(stderr, "run %s with profile %d\n", part_.c_str(), profile_);
        if (stream == nullptr || addresses_.size() != tensors_.size()) return refuse("stream or address missing");
        if (part_ == "stem") return run_stem();
        return part_ == "trunk" ? run_trunk() : run_model();
    }

private:
    static constexpr std::int64_t TOKENS = 37;  // of an image, one of them a class token

    const DoubleTensor& find(const std::string& name) const {
        return *std::find_if(tensors_.begin(), tensors_.end(), [&](const auto& tensor) { return tensor.name == name; });
    }

    template <typename T>
    T* at(const char* name) const {
        return static_cast<T*>(addresses_.at(name));
    }

    bool refuse(const char* why) const {
        logger_.log(ILogger::Severity::kERROR, why);
        logger_.log(ILogger::Severity::kERROR, "a consequence of it");
        return false;
    }

    void write_logits(std::int64_t image, float first) {
        const char* name = addresses_.count("logits") != 0 ? "logits" : "embeddings";
        const std::int64_t classes = getTensorShape(name).d[1];
        for (std::int64_t i = 0; i < classes; ++i) at<float>(name)[image * classes + i] = first + float(i);
    }

    // The last pixel, and one more for each class.
    bool run_model() {
        const Dims dims = shapes_.at("images");
        const std::int64_t size = dims.d[1] * dims.d[2] * dims.d[3];
        for (std::int64_t image = 0; image < dims.d[0]; ++image) {
            write_logits(image, at<float>("images")[image * size + size - 1]);
        }
        std::fill_n(at<std::int32_t>("counts"), dims.d[0], 19);
        return true;
    }

    // Keeps the class token and, up to the upper limit, the last tokens of each image; a token is its index.
    bool run_stem() {
        const std::int64_t images = shapes_.at("images").d[0];
        std::vector<std::int32_t> kept, dropped;
        std::int32_t* offsets = at<std::int32_t>("cu_seqlens");
        offsets[0] = 0;
        for (std::int64_t image = 0; image < images; ++image) {
            const std::int32_t limit = at<std::int32_t>("keep_limits")[2 * image + 1];
            for (std::int64_t token = 0; token < TOKENS; ++token) {
                const bool keeps = token == 0 || token >= TOKENS - limit;
                (keeps ? kept : dropped).push_back(std::int32_t(image * TOKENS + token));
            }
            offsets[image + 1] = offsets[image] + 1 + limit;
            at<std::int32_t>("counts")[image] = 1 + limit;
            at<float>("guard")[image] = at<float>("mass")[image];
        }
        std::copy(dropped.begin(), dropped.end(), std::copy(kept.begin(), kept.end(), at<std::int32_t>("rows")));
        std::iota(at<float>("tokens"), at<float>("tokens") + images * TOKENS, 0.0f);
        stem_memory = addresses_;
        return true;
    }

    // The sum of the tokens that an image kept, and its guard, and one more for each class.
    bool run_trunk() {
        const std::int64_t images = shapes_.at("guard").d[0], longest = shapes_.at("lanes").d[0];
        const std::int32_t* offsets = at<std::int32_t>("cu_seqlens");
        for (const char* name : {"tokens", "cu_seqlens", "guard"}) {
            if (stem_memory.at(name) != addresses_.at(name)) return refuse("the seam is not shared");
        }
        if (addresses_.at("kept") != stem_memory.at("rows")) return refuse("kept is no view of rows");
        if (shapes_.at("kept").d[0] != offsets[images]) return refuse("kept is of another length");
        std::int64_t most = 0;
        for (std::int64_t image = 0; image < images; ++image) {
            most = std::max<std::int64_t>(most, offsets[image + 1] - offsets[image]);
            float sum = at<float>("guard")[image];
            for (std::int32_t i = offsets[image]; i < offsets[image + 1]; ++i) {
                sum += at<float>("tokens")[at<std::int32_t>("kept")[i]];
            }
            write_logits(image, sum);
        }
        for (std::int32_t lane = 0; lane < TOKENS; ++lane) {
            if (at<std::int32_t>("lanes")[lane] != lane) return refuse("the lanes are others");
        }
        return longest == most || refuse("lanes are of another length");
    }

    std::string part_;
    std::vector<DoubleTensor> tensors_;
    ILogger& logger_;
    std::size_t profile_ = 0;
    std::map<std::string, Dims> shapes_;
    std::map<std::string, void*> addresses_;
};

class ICudaEngine {
public:
    ICudaEngine(std::istringstream plan, ILogger& logger) : logger_(logger) {
        const std::map<std::string, DataType> types = {{"float32", DataType::kFLOAT},
                                                       {"float16", DataType::kHALF},
                                                       {"int32", DataType::kINT32},
                                                       {"int8", DataType::kINT8}};
        for (std::string line; std::getline(plan, line);) {
            std::istringstream words(line);
            std::string what, name, type;
            words >> what >> name;
            if (what == "part") {
                part_ = name;
            } else if (what == "profile") {
                const auto named = [&](const DoubleTensor& tensor) { return tensor.name == name; };
                const auto tensor = std::find_if(tensors_.begin(), tensors_.end(), named);
                for (int i = 0; i < 3; ++i) tensor->spans.push_back(read(words));
            } else if (what == "weights") {
                const std::map<std::string, std::int64_t> sizes = {{"float32", 4}, {"float16", 2}, {"int8", 1}};
                std::int64_t count = 0;
                std::swap(name, type);
                words >> name >> count;
                weights_.push_back({name, {types.at(type), nullptr, count}, count * sizes.at(type)});
            } else {
                words >> type;
                tensors_.push_back({name, what == "input", types.at(type), read(words), {}});
            }
        }
    }

    std::vector<DoubleWeights>& weights() { return weights_; }

    IExecutionContext* createExecutionContext() noexcept {
        for (const DoubleWeights& each : weights_) {
            if (!each.given) logger_.log(ILogger::Severity::kERROR, "it has no weights");
            if (!each.given) return nullptr;
        }
        return new IExecutionContext(part_, tensors_, logger_); }
    std::int32_t getNbIOTensors() const noexcept { return std::int32_t(tensors_.size()); }
    const char* getIOTensorName(std::int32_t index) const noexcept { return tensors_.at(index).name.c_str(); }
    DataType getTensorDataType(const char* name) const noexcept { return find(name).type; }
    Dims getTensorShape(const char* name) const noexcept { return find(name).shape; }
    std::int32_t getNbOptimizationProfiles() const noexcept { return std::int32_t(tensors_.at(0).spans.size() / 3); }

    TensorIOMode getTensorIOMode(const char* name) const noexcept {
        return find(name).given ? TensorIOMode::kINPUT : TensorIOMode::kOUTPUT;
    }

    Dims getProfileShape(const char* name, std::int32_t profile, OptProfileSelector which) const noexcept {
        return find(name).spans.at(3 * profile + int(which));
    }

private:
    static Dims read(std::istream& words) {
        Dims dims;
        for (std::string word; words >> word && word != ":";) dims.d[dims.nbDims++] = std::stoll(word);
        return dims;
    }

    const DoubleTensor& find(const std::string& name) const {
        return *std::find_if(tensors_.begin(), tensors_.end(), [&](const auto& tensor) { return tensor.name == name; });
    }

    std::string part_;
    std::vector<DoubleTensor> tensors_;
    std::vector<DoubleWeights> weights_;
    ILogger& logger_;
};

// Takes all weights of an engine, but for one named "odd"; misses one named "hidden" which it does not list.
class IRefitter {
public:
    IRefitter(ICudaEngine& engine, ILogger& logger) : engine_(engine), logger_(logger) {}

    std::int32_t getAllWeights(std::int32_t size, const char** names) noexcept {
        return list(size, names, [](const DoubleWeights& each) { return each.name != "hidden"; });
    }

    std::int32_t getMissingWeights(std::int32_t size, const char** names) noexcept {
        return list(size, names, [](const DoubleWeights& each) { return !each.given; });
    }

    Weights getWeightsPrototype(const char* name) const noexcept { return find(name).prototype; }

    bool setNamedWeights(const char* name, Weights weights) noexcept {
        DoubleWeights& own = find(name);
        if (own.name == "odd") logger_.log(ILogger::Severity::kERROR, "odd weights");
        if (own.name == "odd" || own.prototype.type != weights.type) return false;
        const unsigned char* values = static_cast<const unsigned char*>(weights.values);
        std::fprintf(stderr, "upload weights %s, sum %d\n", name, std::accumulate(values, values + own.bytes, 0));
        return own.given = true;
    }

    bool refitCudaEngine() noexcept { return true; }

private:
    template <typename Which>
    std::int32_t list(std::int32_t size, const char** names, Which which) {
        std::int32_t count = 0;
        for (const DoubleWeights& each : engine_.weights()) {
            if (!which(each)) continue;
            if (count < size) names[count] = each.name.c_str();
            ++count;
        }
        return count;
    }

    DoubleWeights& find(const std::string& name) const {
        const auto named = [&](const DoubleWeights& each) { return each.name == name; };
        return *std::find_if(engine_.weights().begin(), engine_.weights().end(), named);
    }

    ICudaEngine& engine_;
    ILogger& logger_;
};

inline IRefitter* createInferRefitter(ICudaEngine& engine, ILogger& logger) noexcept {
    return new IRefitter(engine, logger);
}

class IRuntime {
public:
    explicit IRuntime(ILogger& logger) : logger_(logger) {}

    void setEngineHostCodeAllowed(bool allowed) noexcept {
        if (allowed) std::fprintf(stderr, "host code allowed\n");
    }

    ICudaEngine* deserializeCudaEngine(const void* bytes, std::size_t size) noexcept {
        const std::string plan(static_cast<const char*>(bytes), size);
        if (plan.rfind("part ", 0) == 0) return new ICudaEngine(std::istringstream(plan), logger_);
        logger_.log(ILogger::Severity::kWARNING, "a warning");
        logger_.log(ILogger::Severity::kERROR, "the magic\n  number is another");
        return nullptr;
    }

private:
    ILogger& logger_;
};

inline IRuntime* createInferRuntime(ILogger& logger) noexcept { return new IRuntime(logger); }

}  // namespace nvinfer1
