#include <chrono>
#include <cmath>
#include <filesystem>
#include <fmt/format.h>

#include "cache/page_format.h"
#include "cli/answer_run.h"
#include "cli/eval_command.h"
#include "cli/kv_cache_report.h"
#include "core/error.h"
#include "core/file.h"
#include "eval/choice_encoding.h"
#include "eval/choice_tasks.h"
#include "eval/choices.h"

namespace mha2mla::cli {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

/// A benchmark, read and in tokens.
struct Benchmark {
    std::string name;
    bool normalized = false;  // its score is accuracy_norm
    std::vector<eval::ChoiceQuestion> questions = {};
    std::vector<eval::TokenQuestion> tokens = {};   // of the same questions
    std::vector<std::string> left_out = {};         // why a row is not among them
    std::vector<std::filesystem::path> files = {};  // that of the questions first

    std::size_t rows() const { return questions.size() + left_out.size(); }
};

/// How a benchmark went.
struct BenchmarkScore {
    const Benchmark* benchmark;
    double questions = 0;
    double right = 0, right_norm = 0;
    double seconds = 0;

    double accuracy() const { return right / questions; }
    double accuracy_norm() const { return right_norm / questions; }
    double score() const { return benchmark->normalized ? accuracy_norm() : accuracy(); }
    /// Of the mean of `questions` zeros and ones.
    double error(double accuracy) const {
        return questions < 2 ? 0 : std::sqrt(accuracy * (1 - accuracy) / (questions - 1));
    }
};

/// lm-evaluation-harness gives the latter for answers that are texts of unlike lengths.
bool is_normalized(std::string_view name) { return name != "mmlu" && name != "commonsenseqa" && name != "winogrande"; }

/// The benchmarks of the paper's average (arXiv 2502.14837, table 1).
const std::vector<std::string> commonsense{"mmlu",      "arc-easy",   "arc-challenge", "piqa",
                                           "hellaswag", "openbookqa", "winogrande"};

class Reader {
public:
    Reader(const EvalCommand& command, const checkpoint::Checkpoint& model, Session& session)
        : command_(command),
          words_(load_tokenizer(model)),
          bos_(model.config().bos_token_id.value_or(
              model.config().eos_token_ids.empty() ? 0 : model.config().eos_token_ids.front())),
          context_(static_cast<std::size_t>(allowed_context(command, model.config()))),
          session_(session) {}

    Benchmark read(const std::string& name) const {
        Benchmark benchmark{.name = name, .normalized = is_normalized(name)};
        const auto* const task = eval::find_choice_task(name);
        auto rows = task ? eval::read_questions(*task, command_.data, command_.limit)
                         : eval::read_requests(command_.data, command_.limit);
        benchmark.left_out = std::move(rows.left_out);
        benchmark.files = std::move(rows.files);
        for (auto& question : rows.questions) add(benchmark, std::move(question));
        note_left_out(benchmark.left_out, benchmark.rows(), session_);
        return benchmark;
    }

private:
    void add(Benchmark& benchmark, eval::ChoiceQuestion question) const {
        eval::TokenQuestion tokens;
        try {
            for (const auto& choice : question.choices) {
                tokens.push_back(eval::encode(choice, *words_, bos_, question.where));
            }
        } catch (const core::Error& error) {
            benchmark.left_out.emplace_back(error.what());
            return;
        }
        const std::size_t longest = eval::longest_text(tokens) - 1;  // the last token is predicted, not read
        if (longest > context_) {
            benchmark.left_out.push_back(
                fmt::format("{}: {} tokens, and the context holds {}", question.where, longest, context_));
            return;
        }
        benchmark.questions.push_back(std::move(question));
        benchmark.tokens.push_back(std::move(tokens));
    }

    const EvalCommand& command_;
    std::unique_ptr<tokenizer::Tokenizer> words_;
    int bos_;
    std::size_t context_;
    Session& session_;
};

void require_folder(const EvalCommand& command) {
    if (std::filesystem::is_directory(command.data)) return;
    throw core::Error({.what = "the task commonsense reads several files",
                       .expected = "the folder that holds them under their published names",
                       .got = command.data,
                       .where = "--data"});
}

std::vector<Benchmark> read_benchmarks(const EvalCommand& command, const checkpoint::Checkpoint& model,
                                       Session& session) {
    const Reader reader(command, model, session);
    std::vector<Benchmark> benchmarks;
    if (command.task == "commonsense") {
        require_folder(command);
        for (const auto& name : commonsense) benchmarks.push_back(reader.read(name));
    } else {
        benchmarks.push_back(reader.read(command.task));
    }
    for (const auto& benchmark : benchmarks) {
        require_questions(benchmark.questions.size(), benchmark.left_out, benchmark.files.front());
    }
    return benchmarks;
}

std::int64_t pages_of(std::int64_t tokens) { return (tokens + cache::page_tokens - 1) / cache::page_tokens; }

/// The cache is as large as a batch of the largest questions needs, and one text more, which stays for the next batch.
runtime::DecoderOptions decoder_options(const EvalCommand& command, const std::vector<Benchmark>& benchmarks) {
    std::size_t longest = 2;  // of which the last token is not read
    std::int64_t pages = 0;
    for (const auto& benchmark : benchmarks) {
        for (const auto& question : benchmark.tokens) longest = std::max(longest, eval::longest_text(question));
        pages = std::max(pages, eval::pages_for(benchmark.tokens, command.parallel));
    }
    auto options = command.model.decoder;
    options.context_tokens = static_cast<int>(longest - 1);
    const std::int64_t pages_each = pages_of(options.context_tokens);
    options.sequences = static_cast<int>((pages + pages_each - 1) / pages_each) + 1;
    return for_scoring(options);
}

/// Takes a benchmark's questions, one after the other: those that an earlier run finished, then the others as they
/// come.
class Scoring {
public:
    Scoring(const Benchmark& benchmark, eval::ResultsFile& results)
        : benchmark_(benchmark), results_(results), score_{.benchmark = &benchmark} {
        for (std::size_t i = 0; i < benchmark.questions.size(); ++i) {
            const auto* const known = results.find(id(i));
            if (known) {
                add(i, core::JsonObject(*known, results.where(id(i))));
            } else {
                missing_.push_back(i);
                tokens_.push_back(benchmark.tokens[i]);
            }
        }
    }

    const std::vector<eval::TokenQuestion>& missing() const { return tokens_; }
    const BenchmarkScore& score() const { return score_; }

    void take(std::size_t missing, const std::vector<double>& log_likelihoods) {
        const std::size_t question = missing_[missing];
        results_.add(id(question), {{"log_likelihoods", log_likelihoods}});
        add(question, log_likelihoods);
    }

private:
    std::string id(std::size_t question) const { return benchmark_.name + "/" + benchmark_.questions[question].id; }

    void add(std::size_t question, const core::JsonObject& known) {
        const auto& numbers = known.raw("log_likelihoods");
        const bool usable = numbers.is_array() && numbers.size() == benchmark_.questions[question].choices.size() &&
                            std::all_of(numbers.begin(), numbers.end(), [](const auto& x) { return x.is_number(); });
        if (!usable) known.fail("log_likelihoods", "a number for each choice");
        add(question, numbers.get<std::vector<double>>());
    }

    void add(std::size_t question, const std::vector<double>& log_likelihoods) {
        const auto judged = eval::judge(benchmark_.questions[question], log_likelihoods);
        score_.questions += 1;
        score_.right += judged.right ? 1 : 0;
        score_.right_norm += judged.right_norm ? 1 : 0;
    }

    const Benchmark& benchmark_;
    eval::ResultsFile& results_;
    BenchmarkScore score_;
    std::vector<std::size_t> missing_;         // questions
    std::vector<eval::TokenQuestion> tokens_;  // of these
};

BenchmarkScore measure(const Benchmark& benchmark, eval::ResultsFile& results, const eval::ScoreOptions& options,
                       eval::TextScorer& scorer, Session& session) {
    const auto start = Clock::now();
    Scoring scoring(benchmark, results);
    const auto known = static_cast<std::int64_t>(scoring.score().questions);
    session.progress().begin(benchmark.name, std::ssize(scoring.missing()));
    eval::score_questions(
        scoring.missing(), options, scorer,
        [&](std::size_t question, const std::vector<double>& log_likelihoods) {
            scoring.take(question, log_likelihoods);
            const auto& score = scoring.score();
            session.progress().update(static_cast<std::int64_t>(score.questions) - known,
                                      fmt::format("{:.1f} % right", 100 * score.score()));
        },
        session.stop());
    session.progress().end();
    auto score = scoring.score();
    score.seconds = seconds_since(start);
    return score;
}

/// The paper's average: ARC's two halves are one benchmark.
double average(const std::vector<BenchmarkScore>& scores) {
    double sum = 0, arc = 0;
    for (const auto& score : scores) (score.benchmark->name.starts_with("arc") ? arc : sum) += score.score();
    return scores.size() == 1 ? scores.front().score() : (sum + arc / 2) / static_cast<double>(scores.size() - 1);
}

core::OrderedJson to_json(const BenchmarkScore& score) {
    return {{"task", score.benchmark->name},
            {"file", score.benchmark->files.front().string()},
            {"questions", static_cast<std::int64_t>(score.questions)},
            {"left_out", score.benchmark->left_out.size()},
            {"accuracy", score.accuracy()},
            {"accuracy_error", score.error(score.accuracy())},
            {"accuracy_norm", score.accuracy_norm()},
            {"accuracy_norm_error", score.error(score.accuracy_norm())},
            {"seconds", score.seconds}};
}

/// A file as its folder, --data, knows it.
std::string file_in(const std::string& data, const std::filesystem::path& file) {
    if (!std::filesystem::is_directory(data)) return file.filename().string();
    return file.lexically_relative(core::absolute_target(data)).string();
}

std::string table(const EvalCommand& command, const std::vector<BenchmarkScore>& scores) {
    std::string text =
        "| benchmark | questions | accuracy % | by characters % | file |\n| --- | ---: | ---: | ---: | --- |\n";
    for (const auto& score : scores) {
        text += fmt::format("| {} | {} | {:.2f} +/- {:.2f} | {:.2f} +/- {:.2f} | {} |\n", score.benchmark->name,
                            score.questions, 100 * score.accuracy(), 100 * score.error(score.accuracy()),
                            100 * score.accuracy_norm(), 100 * score.error(score.accuracy_norm()),
                            file_in(command.data, score.benchmark->files.front()));
    }
    if (scores.size() > 1) text += fmt::format("| average | | {:.2f} | | |\n", 100 * average(scores));
    return text;
}

void print(const EvalCommand& command, const std::vector<BenchmarkScore>& scores, const core::OrderedJson& kv_cache,
           const Session& session) {
    double questions = 0, seconds = 0;
    std::size_t rows = 0;
    core::OrderedJson tasks = core::OrderedJson::array(), left_out = core::OrderedJson::array();
    for (const auto& score : scores) {
        for (const auto& reason : score.benchmark->left_out) left_out.push_back(reason);
        rows += score.benchmark->rows();
        questions += score.questions;
        seconds += score.seconds;
        tasks.push_back(to_json(score));
    }
    session.print({{"task", command.task},
                   {"score", average(scores)},
                   {"questions", static_cast<std::int64_t>(questions)},
                   {"seconds", seconds},
                   {"tasks", tasks},
                   {"left_out", left_out},
                   {"run", run_report(command)},
                   {"kv_cache", kv_cache}},
                  table(command, scores) + table_remark(kv_cache, left_out.size(), rows));
}

}  // namespace

void eval_choices(const EvalCommand& command, Session& session) {
    require_option(command.data, "--data", command);
    const auto model = checkpoint::Checkpoint::open(command.model.path);
    const auto benchmarks = read_benchmarks(command, model, session);
    std::vector<std::filesystem::path> files;
    for (const auto& benchmark : benchmarks) files.insert(files.end(), benchmark.files.begin(), benchmark.files.end());
    auto results = results_file(command, files, core::Json::object());
    const auto decoder = load_decoder(model, decoder_options(command, benchmarks), session);
    eval::TextScorer scorer(*decoder, session.pool());
    const eval::ScoreOptions options{.at_once = command.parallel,
                                     .pages = decoder->free_pages() - pages_of(decoder->context_tokens())};
    std::vector<BenchmarkScore> scores;
    for (const auto& benchmark : benchmarks) scores.push_back(measure(benchmark, results, options, scorer, session));
    print(command, scores, kv_cache_report(model.config(), command.model.decoder.kv_cache), session);
}

}  // namespace mha2mla::cli
