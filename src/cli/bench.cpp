#include <algorithm>
#include <fmt/format.h>
#include <memory>

#include "bench/kernels_bench.h"
#include "bench/machine_load.h"
#include "bench/machine_peaks.h"
#include "bench/read_bandwidth.h"
#include "bench/throughput.h"
#include "cli/model_options.h"
#include "cli/session.h"
#include "core/error.h"

namespace mha2mla::cli {
namespace {

struct BenchCommand {
    ModelOptions model;
    bench::ThroughputOptions throughput;
    bool long_context = false;
    bool kernels = false;
    std::string only;  // of the kernels
};

core::OrderedJson to_json(const bench::ThroughputResult& result) {
    core::OrderedJson object{{"test", result.test},
                             {"depth", result.depth},
                             {"tokens_per_second", result.tokens_per_second},
                             {"kv_bytes_allocated", result.kv_bytes_allocated},
                             {"kv_bytes_per_token_allocated", result.kv_bytes_per_token_allocated}};
    if (result.bound_tokens_per_second > 0) {
        object["read_gigabytes_per_second"] = result.bytes_per_second / 1e9;
        object["bound_tokens_per_second"] = result.bound_tokens_per_second;
        object["share_of_bound"] = result.share_of_bound;
    }
    return object;
}

std::string to_text(const bench::ThroughputResult& result) {
    const std::string bound = result.bound_tokens_per_second > 0
                                  ? fmt::format("{:6.1f} % of the bound at {:.1f} GB/s", 100 * result.share_of_bound,
                                                result.bytes_per_second / 1e9)
                                  : "";
    return fmt::format("{:<8} depth {:>6} {:>10.1f} tokens/s   {:>10} cache bytes {}\n", result.test, result.depth,
                       result.tokens_per_second, result.kv_bytes_allocated, bound);
}

void note_load(const Session& session) {
    const auto load = bench::machine_load();
    if (load.runnable == 0) return;
    session.note(
        fmt::format("warning: the machine is not idle: {} other threads want to run, load average {:.1f}; the "
                    "numbers will be too low",
                    load.runnable, load.load_average));
}

void check_depth(const BenchCommand& command, const checkpoint::ModelConfig& config) {
    const auto& options = command.throughput;
    const int tokens = bench::context_tokens(options);
    if (command.long_context || tokens <= config.max_position_embeddings) return;
    const int depth = *std::max_element(options.depths.begin(), options.depths.end());
    throw core::Error({.what = "the tests need a longer context than the model was made for",
                       .expected = fmt::format("at most {} tokens", config.max_position_embeddings),
                       .got = fmt::format("{} + {} tokens", depth, tokens - depth),
                       .where = "--depth",
                       .remedy = "pass a smaller --depth, --prefill or --decode, or --allow-long-context"});
}

void bench_model(const BenchCommand& command, Session& session) {
    const auto model = checkpoint::Checkpoint::open(command.model.path);
    check_depth(command, model.config());
    note_load(session);
    auto options = command.model.decoder;
    if (options.context_tokens == 0) options.context_tokens = bench::context_tokens(command.throughput);
    options.sequences = command.throughput.parallel;
    const auto limit = command.long_context ? ContextLimit::none : ContextLimit::model;
    const auto decoder = load_decoder(model, options, session, limit);
    const bench::ReadBandwidth bandwidth(session.pool());
    const auto results = bench::throughput(
        *decoder, command.throughput, [&] { return bandwidth.measure(); }, session.progress(), session.stop());

    auto list = core::OrderedJson::array();
    std::string text =
        fmt::format("{:.1f} MB of weights, {} threads; bound: the weights and cache of a step, read once\n",
                    static_cast<double>(decoder->weight_bytes()) / 1e6, session.pool().size());
    for (const auto& result : results) {
        list.push_back(to_json(result));
        text += to_text(result);
    }
    session.print(list, text);
}

double share(double giga, double peak) { return peak > 0 ? giga * 1e9 / peak : 0; }

void bench_kernels(const std::string& only, Session& session) {
    const auto isa = kernels::kernels().isa;
    if (bench::count_kernels(isa, only, session.pool()) == 0) {
        throw core::Error({.what = "no kernel's name and shape contain the text",
                           .got = only,
                           .where = "--only",
                           .remedy = "leave it out to see all"});
    }
    note_load(session);
    const auto peaks = bench::measure_peaks(isa, session.pool());
    auto list = core::OrderedJson::array();
    std::string text =
        fmt::format("{} kernels, {} threads; at most {:.1f} GB/s, {:.0f} GFLOP/s, {:.0f} GOP/s of 8-bit integers\n",
                    kernels::name_of(isa), session.pool().size(), peaks.bytes / 1e9, peaks.float_operations / 1e9,
                    peaks.integer_operations / 1e9);
    for (const auto& timing : bench::bench_kernels(isa, only, session.pool())) {
        const double of_memory = share(timing.gigabytes_per_second, peaks.bytes);
        const double of_operations =
            share(timing.gigaflops_per_second, timing.integer ? peaks.integer_operations : peaks.float_operations);
        list.push_back({{"kernel", timing.kernel},
                        {"shape", timing.shape},
                        {"seconds", timing.seconds},
                        {"gigabytes_per_second", timing.gigabytes_per_second},
                        {"gigaflops_per_second", timing.gigaflops_per_second},
                        {"share_of_bandwidth", of_memory},
                        {"share_of_operations", of_operations}});
        text +=
            fmt::format("{:<10} {:<55} {:>9.1f} us {:>6.1f} GB/s {:>3.0f} % {:>7.1f} {} {:>3.0f} %\n", timing.kernel,
                        timing.shape, 1e6 * timing.seconds, timing.gigabytes_per_second, 100 * of_memory,
                        timing.gigaflops_per_second, timing.integer ? "GOP/s  " : "GFLOP/s", 100 * of_operations);
    }
    session.print(list, text);
}

}  // namespace

void add_bench(CLI::App& program, Session& session) {
    auto command = std::make_shared<BenchCommand>();
    auto& options = command->throughput;
    const CLI::Range tokens(0, 1 << 24);
    CLI::App* verb = add_verb(
        program, session, "bench", "Measure prefill and decode speed at several depths of the cache",
        "  mha2mla bench MODEL\n  mha2mla bench MODEL --depth 0,4096 --decode 64 --json\n"
        "  mha2mla bench MODEL --prefill 0 --parallel 8 --depth 2048\n  mha2mla bench --kernels --only int4-c");
    add_model_options(*verb, command->model);
    auto* kernels = verb->add_flag("--kernels", command->kernels, "Check and time the kernels alone; takes no MODEL");
    verb->get_option("MODEL")->required(false)->excludes(kernels);
    verb->add_option("--only", command->only, "Of the kernels: those whose name and shape contain this text")
        ->needs(kernels);
    verb->add_option("--prefill", options.prompt_tokens, "Tokens of the prefill test; 0 = leave it out")
        ->check(tokens)
        ->capture_default_str();
    verb->add_option("--decode", options.generated_tokens, "Tokens of the decode test; 0 = leave it out")
        ->check(tokens)
        ->capture_default_str();
    verb->add_option("--depth", options.depths, "Tokens in the cache before each test")
        ->delimiter(',')
        ->check(tokens)
        ->capture_default_str();
    verb->add_flag("--allow-long-context", command->long_context,
                   "Depths that the model was not made for, too: time does not ask what the text means");
    verb->add_option("--parallel", options.parallel, "Sequences of the decode test; their tokens count together")
        ->check(CLI::Range(1, runtime::Decoder::max_batch_tokens))
        ->capture_default_str();
    verb->add_option("--repetitions", options.repetitions, "Runs of each test; the median counts")
        ->check(CLI::Range(1, 1000))
        ->capture_default_str();
    verb->callback([command, &session] {
        if (command->kernels) return bench_kernels(command->only, session);
        if (command->model.path.empty()) throw CLI::RequiredError("MODEL");
        bench_model(*command, session);
    });
}

}  // namespace mha2mla::cli
