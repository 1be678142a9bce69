/// The conversion against an independent one in Python. Fixture: tools/make_convert_fixtures.py.
#include <cstdint>
#include <filesystem>
#include <gtest/gtest.h>
#include <initializer_list>
#include <stdexcept>
#include <string>
#include <vector>

#include "convert/pipeline.h"
#include "core/file.h"
#include "core/json.h"
#include "model/causal_lm.h"

namespace mha2mla::convert {
namespace {

namespace fs = std::filesystem;
using checkpoint::Checkpoint;

core::Json read_fixture() {
    const auto path = fs::path(MHA2MLA_FIXTURES) / "convert" / "tiny-gqa.json";
    return core::parse_json(core::read_text(path), path.string());
}

template <typename Enum>
Enum by_name(std::initializer_list<Enum> all, const std::string& name) {
    for (const Enum value : all) {
        if (name_of(value) == name) return value;
    }
    throw std::invalid_argument(name);
}

ConversionOptions options_of(const core::Json& test_case) {
    ConversionOptions options;
    options.selection =
        by_name({Selection::high, Selection::low, Selection::uniform}, test_case["select"].get<std::string>());
    options.factorization = by_name({Factorization::none, Factorization::joint_svd, Factorization::split_svd},
                                    test_case["factor"].get<std::string>());
    options.rope_pairs = test_case["rope_pairs"].get<int>();
    if (options.factorization != Factorization::none) options.kv_rank = test_case["kv_rank"].get<int>();
    options.split_full_rank = test_case["split_full_rank"].get<bool>();
    return options;
}

class Reference : public testing::Test {
protected:
    void SetUp() override {
        const auto* test = testing::UnitTest::GetInstance()->current_test_info();
        target_ = fs::path(testing::TempDir()) / (std::string("mha2mla_reference_") + test->name());
    }
    void TearDown() override { fs::remove_all(target_); }

    ConversionReport convert_source(const ConversionOptions& options, const data::TextWindows& calibration = {}) const {
        ConvertRequest request;
        request.target = target_;
        request.replace = true;
        request.dtype = core::DType::f32;
        core::Progress silent;
        return convert(source_, make_plan(source_.config(), options), calibration, request, silent, {});
    }

    /// Logits of the converted model at the fixture's positions. [positions, vocab]
    torch::Tensor converted_logits() const {
        const torch::NoGradGuard no_gradients;
        model::CausalLm model(Checkpoint::open(target_), model::ModelOptions{});
        const auto tokens = torch::tensor(fixture_["tokens"].get<std::vector<std::int64_t>>()).unsqueeze(0);
        const auto positions = torch::tensor(fixture_["positions"].get<std::vector<std::int64_t>>());
        return model(tokens)[0].index_select(0, positions);
    }

    core::Json fixture_ = read_fixture();
    Checkpoint source_ = Checkpoint::open(fs::path(MHA2MLA_FIXTURES) / "models" / "tiny-gqa");
    fs::path target_;
};

torch::Tensor expected_logits(const core::Json& test_case) {
    std::vector<torch::Tensor> rows;
    for (const auto& row : test_case["logits"]) rows.push_back(torch::tensor(row.get<std::vector<float>>()));
    return torch::stack(rows);
}

TEST_F(Reference, LogitsPairsAndEnergyAreEqual) {
    for (const auto& test_case : fixture_["cases"]) {
        SCOPED_TRACE(test_case["name"].get<std::string>());
        const auto report = convert_source(options_of(test_case));
        const auto expected = expected_logits(test_case);
        const auto difference = (converted_logits() - expected).abs().max() / expected.abs().max();
        EXPECT_LT(difference.item<double>(), 1e-4);
        for (std::size_t layer = 0; layer < report.layers.size(); ++layer) {
            const auto& wanted = test_case["layers"][layer];
            EXPECT_EQ(report.plan.target.mla().rope_pairs[layer], wanted["pairs"].get<std::vector<std::vector<int>>>());
            EXPECT_NEAR(report.layers[layer].key_energy, wanted["key_energy"].get<double>(), 1e-5);
            EXPECT_NEAR(report.layers[layer].value_energy, wanted["value_energy"].get<double>(), 1e-5);
        }
    }
}

TEST_F(Reference, TwoNormChoosesTheSamePairs) {
    ConversionOptions options;
    options.selection = Selection::two_norm;
    options.rope_pairs = fixture_["two_norm"]["rope_pairs"].get<int>();
    const auto report = convert_source(options, {{fixture_["tokens"].get<std::vector<int>>()}, "the fixture"});
    using Pairs = std::vector<std::vector<std::vector<int>>>;
    EXPECT_EQ(report.plan.target.mla().rope_pairs, fixture_["two_norm"]["pairs"].get<Pairs>());
}

}  // namespace
}  // namespace mha2mla::convert
