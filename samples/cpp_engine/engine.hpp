// One engine file of TensorRT or TensorRT for RTX: what it takes, which profile fits, and how it is run.
#pragma once

#include <NvInferRuntime.h>

#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "cuda.hpp"
#include "golden.hpp"

namespace sait {

// Keeps the first error that TensorRT tells of: those after it are its consequences.
class Log : public nvinfer1::ILogger {
public:
    void log(Severity severity, const char* message) noexcept override;

    // Returns it in one line, and forgets it.
    std::string first_error();

private:
    std::mutex mutex_;
    std::string first_;
};

// The library that engines are loaded with.
class Runtime {
public:
    // Engines that --version-compatible built carry code for the host: they load only where the caller trusts it.
    enum class HostCode { refused, allowed };

    explicit Runtime(HostCode host_code);

    nvinfer1::IRuntime& native() { return *native_; }
    Log& log() { return log_; }

private:
    Log log_;
    std::unique_ptr<nvinfer1::IRuntime> native_;
};

// An input or output; -1 stands in its shape where a dimension is not fixed.
struct Tensor {
    std::string name;
    std::string dtype;
    Shape shape;
};

using Shapes = std::map<std::string, Shape>;
using Addresses = std::map<std::string, void*>;

class Part {
public:
    // Deserialises a file, and puts the weights of another into it unless that is empty. Throws Failure where TensorRT
    // refuses one of them.
    Part(Runtime& runtime, const std::filesystem::path& plan, const std::filesystem::path& weights);

    const std::string& name() const { return name_; }
    const std::vector<Tensor>& inputs() const { return inputs_; }
    const std::vector<Tensor>& outputs() const { return outputs_; }
    int profile() const { return profile_; }
    int profiles() const { return engine_->getNbOptimizationProfiles(); }

    // Returns an input or output of that name, or null.
    const Tensor* find(const std::string& tensor) const;

    // Sets the shapes of all inputs, and the profile that is tuned nearest to them. Throws Failure where none takes
    // them.
    void set_shapes(const Shapes& shapes, const Stream& stream);

    // The shape of an input or output, once set_shapes was called.
    Shape shape(const std::string& tensor) const;

    // Bytes of an input or output, once set_shapes was called.
    std::size_t bytes(const std::string& tensor) const;

    // Starts a run; there has to be an address for each input and output.
    void enqueue(const Addresses& addresses, const Stream& stream);

private:
    int choose_profile(const Shapes& shapes) const;
    double distance(const std::string& input, const Shape& shape, int profile, std::string& refused) const;
    [[noreturn]] void fail(const std::string& what) const;

    Log& log_;
    std::string name_;
    std::unique_ptr<nvinfer1::ICudaEngine> engine_;
    std::unique_ptr<nvinfer1::IExecutionContext> context_;
    std::vector<Tensor> inputs_, outputs_;
    int profile_ = 0;
};

}  // namespace sait
