// Weights of an engine that was built without them (--strip-weights).
#pragma once

#include <NvInferRuntime.h>

#include <filesystem>
#include <string>

#include "engine.hpp"

namespace sait {

// Puts the weights of a file of write_weights.py into an engine: all that it asks for. Throws Failure where the file
// lacks one, or has it of another type or size.
void put_weights_in(nvinfer1::ICudaEngine& engine, Log& log, const std::string& name,
                    const std::filesystem::path& file);

}  // namespace sait
