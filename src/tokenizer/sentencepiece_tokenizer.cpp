#include "tokenizer/sentencepiece_tokenizer.h"

#include <fmt/format.h>
#include <sentencepiece_processor.h>

#include "core/error.h"
#include "tokenizer/added_tokens.h"
#include "tokenizer/replace_all.h"
#include "tokenizer/token_decoder.h"

namespace mha2mla::tokenizer {
namespace {

constexpr std::string_view space_mark = "\xe2\x96\x81";  // U+2581
constexpr std::size_t max_model_bytes = std::size_t{1} << 28;

class SentencePieceTokenizer final : public Tokenizer {
public:
    SentencePieceTokenizer(std::string_view bytes, SpecialRules rules, const std::string& where) : where_(where) {
        const auto status = bytes.size() <= max_model_bytes ? model_.LoadFromSerializedProto(bytes) : bad_size();
        if (!status.ok()) {
            throw core::Error({.what = fmt::format("not a usable sentencepiece model ({})", status.ToString()),
                               .where = where,
                               .remedy = "copy the model's tokenizer.model again"});
        }
        read_control_tokens();
        read_special_ids(std::move(rules));
        drops_leading_space_ = starts_with_mark("a");
    }

    std::string token_bytes(int id, bool special) const override {
        if (id < 0 || id >= vocab_size()) return {};
        if (is_control(id)) return special ? model_.IdToPiece(id) : std::string();
        const auto byte = model_.IsByte(id) ? fallback_byte(model_.IdToPiece(id)) : std::nullopt;
        return byte ? std::string(1, *byte) : replace_all(model_.IdToPiece(id), space_mark, " ");
    }

    int vocab_size() const override { return model_.GetPieceSize(); }

    std::optional<int> id_of(std::string_view token) const override {
        const int id = model_.PieceToId(token);  // the unknown token's where there is none
        const bool found = id >= 0 && id < vocab_size() && model_.IdToPiece(id) == token;
        return found ? std::optional(id) : std::nullopt;
    }

    bool drops_leading_space() const override { return drops_leading_space_; }

protected:
    void append_ids(std::string_view text, bool parse_special, std::vector<int>& ids) const override {
        controls_.split(text, parse_special, [&](const AddedTokens::Piece& piece) {
            if (piece.id) return ids.push_back(*piece.id);
            const auto pieces = encoded(piece.text);
            ids.insert(ids.end(), pieces.begin(), pieces.end());
        });
    }

    std::vector<int> add_special_ids(std::vector<int> ids) const override {
        return special_ids_.around(std::move(ids));
    }

private:
    static sentencepiece::util::Status bad_size() {
        return {sentencepiece::util::StatusCode::kOutOfRange, "larger than 256 MiB"};
    }

    bool is_control(int id) const { return model_.IsControl(id) || model_.IsUnknown(id); }

    std::vector<int> encoded(std::string_view text) const {
        std::vector<int> ids;
        const auto status = model_.Encode(text, &ids);
        if (status.ok()) return ids;
        throw core::Error(
            {.what = fmt::format("sentencepiece failed on the text ({})", status.ToString()), .where = where_});
    }

    void read_control_tokens() {
        std::vector<AddedToken> tokens;
        for (int id = 0; id < vocab_size(); ++id) {
            if (is_control(id)) tokens.push_back({.content = model_.IdToPiece(id), .id = id, .special = true});
        }
        controls_ = AddedTokens(std::move(tokens));
    }

    void read_special_ids(SpecialRules rules) {
        if (model_.bos_id() >= 0) {
            special_ids_.prefix = {model_.bos_id()};
            if (!rules.bos_token) rules.bos_token = model_.IdToPiece(model_.bos_id());
        }
        if (model_.eos_id() >= 0 && !rules.eos_token) rules.eos_token = model_.IdToPiece(model_.eos_id());
        const auto lookup = [this](std::string_view token) { return id_of(token); };
        special_ids_ = apply_rules(std::move(special_ids_), rules, lookup, where_);
    }

    /// The library does not tell whether the model puts a space before every text, so we look.
    bool starts_with_mark(std::string_view text) const {
        const auto ids = encoded(text);
        return !ids.empty() && std::string_view(model_.IdToPiece(ids.front())).starts_with(space_mark);
    }

    sentencepiece::SentencePieceProcessor model_;
    AddedTokens controls_;
    SpecialIds special_ids_;
    bool drops_leading_space_ = false;
    std::string where_;
};

}  // namespace

std::unique_ptr<Tokenizer> make_sentencepiece_tokenizer(std::string_view bytes, SpecialRules rules,
                                                        const std::string& where) {
    return std::make_unique<SentencePieceTokenizer>(bytes, std::move(rules), where);
}

}  // namespace mha2mla::tokenizer
