#pragma once

#include "core/json.h"
#include "eval/choice_question.h"

/// What the rows of each benchmark ask: the prompts of lm-evaluation-harness 0.4 (lm_eval/tasks/<benchmark>), without
/// examples. Each throws Error, naming line and field, for a row that lacks what its benchmark has.
namespace mha2mla::eval {

ChoiceQuestion read_arc(const core::JsonObject& row);  ///< easy and challenge
ChoiceQuestion read_piqa(const core::JsonObject& row);
ChoiceQuestion read_hellaswag(const core::JsonObject& row);  ///< of the hub, or "query", "choices", "gold"
ChoiceQuestion read_openbookqa(const core::JsonObject& row);
ChoiceQuestion read_commonsenseqa(const core::JsonObject& row);
ChoiceQuestion read_winogrande(const core::JsonObject& row);
ChoiceQuestion read_mmlu(const core::JsonObject& row);

/// Code points of UTF-8 text.
std::size_t count_characters(std::string_view text);

}  // namespace mha2mla::eval
