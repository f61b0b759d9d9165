// Runs an engine that sait-deploy built on its artifact's golden image, and compares the answer with the golden one.
//
//     run_engine ARTIFACT/engines/NAME [--golden FILE] [--tolerance LOGITS] [--count-tolerance TOKENS]
//                [--allow-host-code] [--weights FOLDER]
//
// Exits with 0 where they agree, 1 where they differ, 2 where it could not be run.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <numeric>

#include "pipeline.hpp"

namespace {

namespace fs = std::filesystem;
using sait::Array;
using sait::Arrays;
using sait::Failure;
using sait::Part;

struct Options {
    fs::path engine, golden, weights;
    double tolerance = 0.02;  // the project's own for fp16
    double count_tolerance = 0;
    sait::Runtime::HostCode host_code = sait::Runtime::HostCode::refused;
};

double number(const std::string& option, const std::string& word) {
    char* end = nullptr;
    const double value = std::strtod(word.c_str(), &end);
    if (end == word.c_str() || *end != '\0' || !(value >= 0)) {
        throw Failure(option + " takes a number from 0, not '" + word + "'");
    }
    return value;
}

Options parse(const std::vector<std::string>& words) {
    Options options;
    for (std::size_t i = 0; i < words.size(); ++i) {
        const std::string& word = words[i];
        const auto value = [&] {
            if (i + 1 == words.size()) throw Failure(word + " takes a value");
            return words[++i];
        };
        if (word == "--golden") {
            options.golden = value();
        } else if (word == "--weights") {
            options.weights = value();
        } else if (word == "--tolerance") {
            options.tolerance = number(word, value());
        } else if (word == "--count-tolerance") {
            options.count_tolerance = number(word, value());
        } else if (word == "--allow-host-code") {
            options.host_code = sait::Runtime::HostCode::allowed;
        } else if (word.rfind("-", 0) == 0) {
            throw Failure("there is no option " + word);
        } else if (!options.engine.empty()) {
            throw Failure("give one engine folder, not " + word + " as well");
        } else {
            options.engine = word;
        }
    }
    if (options.engine.empty()) throw Failure("give an engine folder: run_engine ARTIFACT/engines/NAME");
    // Engines live inside their artifact, two folders below its golden file.
    if (options.golden.empty()) options.golden = options.engine / ".." / ".." / "golden.npz";
    return options;
}

// The files of an engine folder: one, or stem and trunk.
std::vector<fs::path> plans_of(const fs::path& folder) {
    if (!fs::is_directory(folder)) throw Failure(folder.string() + " is no folder");
    const fs::path model = folder / "model.plan", stem = folder / "stem.plan", trunk = folder / "trunk.plan";
    if (fs::exists(model)) return {model};
    if (fs::exists(stem) && fs::exists(trunk)) return {stem, trunk};
    throw Failure(folder.string() + " lacks model.plan, or stem.plan and trunk.plan; run: sait-deploy build-engine");
}

// Whether an engine's own manifest says that it was built without weights.
bool is_stripped(const fs::path& folder) {
    const fs::path manifest = folder / "manifest.json";
    if (!fs::exists(manifest)) return false;
    const sait::Bytes bytes = sait::read_bytes(manifest);
    return std::string(bytes.begin(), bytes.end()).find("\"stripped\": true") != std::string::npos;
}

// The weights of a part; nothing where none are to be put in.
fs::path weights_of(const fs::path& plan, const fs::path& folder) {
    return folder.empty() ? folder : folder / plan.filename().replace_extension(".npz");
}

std::vector<double> numbers(const Array& array) {
    if (array.dtype == "int32") {
        const auto values = array.values<std::int32_t>();
        return {values.begin(), values.end()};
    }
    if (array.dtype != "float32") throw Failure("answers are float32 or int32, not " + array.dtype);
    const auto values = array.values<float>();
    return {values.begin(), values.end()};
}

// The largest difference of two arrays; NaN where either holds one.
double difference(const std::string& name, const Array& found, const Array& golden) {
    if (found.dtype != golden.dtype || found.shape != golden.shape) {
        throw Failure("the engine gives " + name + " as " + found.dtype + " " + sait::text(found.shape) +
                      ", the golden file as " + golden.dtype + " " + sait::text(golden.shape));
    }
    const std::vector<double> ours = numbers(found), theirs = numbers(golden);
    double largest = 0;
    for (std::size_t i = 0; i < ours.size(); ++i) {
        const double one = std::abs(ours[i] - theirs[i]);
        if (!(one <= largest)) largest = one;
        if (std::isnan(largest)) break;
    }
    return largest;
}

// "12.30451 of class 7, 3.21400 of class 1, ...": the three largest.
std::string largest(const double* logits, std::size_t classes) {
    std::vector<std::size_t> order(classes);
    std::iota(order.begin(), order.end(), std::size_t{0});
    const auto shown = order.begin() + static_cast<std::ptrdiff_t>(std::min<std::size_t>(3, classes));
    const auto key = [&](std::size_t i) { return std::isnan(logits[i]) ? -HUGE_VAL : logits[i]; };
    std::partial_sort(order.begin(), shown, order.end(), [&](auto a, auto b) { return key(a) > key(b); });
    order.erase(shown, order.end());
    std::string line;
    for (std::size_t label : order) {
        char part[64];
        std::snprintf(part, sizeof part, "%s%.5f of class %zu", line.empty() ? "" : ", ", logits[label], label);
        line += part;
    }
    return line;
}

// What an engine answers with: logits, or embeddings where its model has no classes.
std::string answer_of(const Arrays& answers) {
    for (const char* name : {"logits", "embeddings"}) {
        if (answers.count(name) != 0) return name;
    }
    throw Failure("the engine gives neither logits nor embeddings");
}

// "0.03012, -0.00917, 0.11020, ...": where an embedding points.
std::string first(const double* embedding, std::size_t width) {
    std::string line;
    for (std::size_t i = 0; i < std::min<std::size_t>(3, width); ++i) {
        char part[32];
        std::snprintf(part, sizeof part, "%.5f, ", embedding[i]);
        line += part;
    }
    return line + "... of " + std::to_string(width);
}

void print(const char* whose, const Arrays& answers) {
    const std::string name = answer_of(answers);
    const std::vector<double> values = numbers(answers.at(name));
    const auto counts = answers.find("counts");
    const auto images = static_cast<std::size_t>(answers.at(name).shape.at(0));
    for (std::size_t image = 0; image < images; ++image) {
        const std::size_t width = values.size() / images;
        const double* row = values.data() + image * width;
        const std::string shown = name == "logits" ? largest(row, width) : first(row, width);
        std::printf("%s image %zu: %s", whose, image, shown.c_str());
        if (counts != answers.end()) std::printf("; %.0f tokens kept", numbers(counts->second).at(image));
        std::printf("\n");
    }
}

// Compares what both have of the answers. Returns whether they agree.
bool compare(const Arrays& found, const Arrays& golden, const Options& options) {
    bool agree = true;
    for (const auto& [name, array] : found) {
        if (golden.count(name) == 0) throw Failure("the golden file lacks " + name + ": is it another artifact's?");
        const double allowed = name == "counts" ? options.count_tolerance : options.tolerance;
        const double largest = difference(name, array, golden.at(name));
        const bool within = largest <= allowed;
        std::printf("%s: differ by at most %.3g, %s %g\n", name.c_str(), largest, within ? "within" : "over", allowed);
        agree = agree && within;
    }
    return agree;
}

int run(const Options& options) {
    const std::vector<fs::path> plans = plans_of(options.engine);
    if (options.weights.empty() && is_stripped(options.engine)) {
        throw Failure(options.engine.string() + " was built without weights; write them with write_weights.py, and " +
                      "give their folder: --weights FOLDER");
    }
    Arrays golden = sait::read_npz(options.golden);
    sait::Stream stream;
    sait::Runtime runtime(options.host_code);
    std::vector<Part> parts;
    for (const fs::path& plan : plans) parts.emplace_back(runtime, plan, weights_of(plan, options.weights));
    sait::Pipeline pipeline(stream, parts.front(), parts.size() > 1 ? &parts.back() : nullptr);
    const Arrays found = pipeline.run(golden);
    // A golden file has a model's answer as logits, whatever the engine calls it.
    if (golden.count("logits") == 0) throw Failure("the golden file has no answer to compare with");
    auto expected = golden.extract("logits");
    expected.key() = answer_of(found);
    golden.insert(std::move(expected));
    if (const auto& extents = pipeline.extents()) {
        std::printf("seam: %lld rows kept, %lld of the longest image\n", static_cast<long long>(extents->rows),
                    static_cast<long long>(extents->longest));
    }
    for (const Part& part : parts) {
        std::printf("%s: profile %d of %d\n", part.name().c_str(), part.profile(), part.profiles());
    }
    print("golden", golden);
    print("engine", found);
    const bool agree = compare(found, golden, options);
    std::printf(agree ? "they agree\n" : "they differ\n");
    return agree ? 0 : 1;
}

}  // namespace

int main(int count, char** words) {
    try {
        return run(parse({words + 1, words + count}));
    } catch (const std::exception& error) {
        std::fprintf(stderr, "error: %s\n", error.what());
        return 2;
    }
}
