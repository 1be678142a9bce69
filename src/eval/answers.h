#pragma once

#include <span>
#include <stop_token>
#include <string>
#include <vector>

#include "core/progress.h"
#include "core/thread_pool.h"
#include "eval/results_file.h"
#include "runtime/decoder.h"
#include "tokenizer/tokenizer.h"

namespace mha2mla::eval {

/// A prompt whose continuation is scored.
struct Question {
    std::string id;  ///< in the results file
    std::vector<int> prompt;
    int max_tokens = 0;
    std::vector<int> stop_tokens;  ///< not part of the answer
    int min_tokens = 0;            ///< of the answer
};

struct Answer {
    std::string text;
    int prompt_tokens = 0;
    int generated_tokens = 0;
};

/// What answers. All must outlive the call.
struct Answerer {
    runtime::Decoder& decoder;
    core::ThreadPool& pool;
    const tokenizer::Tokenizer& words;
    int parallel = 8;  ///< questions at a time, which share the pages that they begin alike with
};

/// Answers greedily those questions that `results` does not hold yet; each answer goes there as it is finished. Throws
/// Cancelled at a stop request, Error for a prompt that the context does not hold.
void answer(const Answerer& answerer, std::span<const Question> questions, ResultsFile& results,
            core::Progress& progress, const std::stop_token& stop);

/// The answer that `results` holds for a question. Throws Error where the file's entry is not one.
Answer answer_of(const Question& question, const ResultsFile& results);

}  // namespace mha2mla::eval
