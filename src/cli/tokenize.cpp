#include <algorithm>
#include <chrono>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <memory>

#include "cli/model_options.h"
#include "cli/session.h"
#include "core/error.h"
#include "data/windows.h"

namespace mha2mla::cli {
namespace {

struct TokenizeOptions {
    std::string path;
    std::string text;
    std::string file;
    std::vector<int> decode;
    bool special = false;
    bool count = false;
};

void check_ids(const std::vector<int>& ids, const tokenizer::Tokenizer& words) {
    for (const int id : ids) {
        if (id >= 0 && id < words.vocab_size()) continue;
        throw core::Error({.what = "no such token",
                           .expected = fmt::format("ids from 0 to {}", words.vocab_size() - 1),
                           .got = fmt::to_string(id),
                           .where = "--decode"});
    }
}

void decode(const TokenizeOptions& options, const tokenizer::Tokenizer& words, const Session& session) {
    check_ids(options.decode, words);
    const std::string text = words.decode(options.decode, true);
    session.print({{"tokens", options.decode}, {"text", text}}, text + "\n");
}

void encode(const TokenizeOptions& options, const tokenizer::Tokenizer& words, const Session& session) {
    const std::string text = options.file.empty() ? options.text : data::read_text_file(options.file);
    const auto started = std::chrono::steady_clock::now();
    const auto ids = words.encode(text, options.special);
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - started;
    if (options.count) {
        const double speed = static_cast<double>(text.size()) / 1e6 / elapsed.count();
        return session.print({{"count", ids.size()}, {"bytes", text.size()}, {"megabytes_per_second", speed}},
                             fmt::format("{} tokens of {} bytes, {:.1f} MB/s\n", ids.size(), text.size(), speed));
    }
    session.print({{"count", ids.size()}, {"tokens", ids}}, fmt::format("{}\n", fmt::join(ids, " ")));
}

void tokenize(const TokenizeOptions& options, const Session& session) {
    const auto words = load_tokenizer(checkpoint::Checkpoint::open(options.path));
    return options.decode.empty() ? encode(options, *words, session) : decode(options, *words, session);
}

}  // namespace

void add_tokenize(CLI::App& program, Session& session) {
    auto options = std::make_shared<TokenizeOptions>();
    CLI::App* verb = add_verb(program, session, "tokenize", "Turn text into token ids, or ids into text",
                              "  mha2mla tokenize MODEL -p 'Hello world'\n  mha2mla tokenize MODEL --decode 19556 905\n"
                              "  mha2mla tokenize MODEL --file wiki.txt --count");
    verb->add_option("MODEL", options->path, "Directory or GGUF file")->required();
    auto* input = verb->add_option_group("input")->require_option(1);
    input->add_option("-p,--prompt", options->text, "Text");
    input->add_option("--file", options->file, "Text file");
    input->add_option("--decode", options->decode, "Token ids to turn into text");
    verb->add_flag("--count", options->count, "Print how many tokens a text has and how fast it was read, not the ids");
    verb->add_flag("--special", options->special, "Add the model's BOS and EOS tokens");
    verb->callback([options, &session] { tokenize(*options, session); });
}

}  // namespace mha2mla::cli
