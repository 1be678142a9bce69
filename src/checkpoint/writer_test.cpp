#include "checkpoint/writer.h"

#include <gmock/gmock.h>
#include <limits>

#include "checkpoint/checkpoint.h"
#include "checkpoint/test_support.h"

namespace mha2mla::checkpoint {
namespace {

namespace fs = std::filesystem;
using test::error_of;
using test::exact_values;
using test::TemporaryDirectory;
using test::tiny_config;
using test::tiny_mla_config;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

void write_all(CheckpointWriter& writer, const std::vector<TensorSpec>& specs) {
    for (std::size_t i = 0; i < specs.size(); ++i) {
        const auto count = static_cast<std::size_t>(element_count(specs[i].shape));
        writer.write(specs[i].name, exact_values(count, static_cast<int>(i)));
    }
}

void write_model(const fs::path& target, const ModelConfig& config, const WriterOptions& options) {
    const auto specs = expected_tensors(config);
    CheckpointWriter writer(target, specs, options);
    write_all(writer, specs);
    writer.add_file("config.json", config_to_json(config, {}).dump());
    writer.add_file("conversion.json", "{}");
    writer.finish();
}

void expect_exact(const fs::path& path, const ModelConfig& config) {
    const auto checkpoint = Checkpoint::open(path);
    EXPECT_EQ(checkpoint.config(), config);
    const auto specs = expected_tensors(config);
    for (std::size_t i = 0; i < specs.size(); ++i) {
        const auto values = checkpoint.read(specs[i].name, specs[i].shape);
        EXPECT_EQ(values, exact_values(values.size(), static_cast<int>(i))) << specs[i].name;
    }
}

std::vector<std::string> names_in(const fs::path& directory) {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(directory)) names.push_back(entry.path().filename().string());
    std::sort(names.begin(), names.end());
    return names;
}

TEST(CheckpointWriter, WritesWhatCheckpointReads) {
    const TemporaryDirectory directory;
    for (const auto dtype : {core::DType::f32, core::DType::f16, core::DType::bf16}) {
        for (const auto& config : {tiny_config(), tiny_mla_config()}) {
            const auto target = directory.path() / fmt::format("{}-{}", core::name_of(dtype), config.model_type);
            write_model(target, config, {.dtype = dtype});
            expect_exact(target, config);
            EXPECT_EQ(names_in(target),
                      (std::vector<std::string>{"config.json", "conversion.json", "model.safetensors"}));
        }
    }
}

TEST(CheckpointWriter, SplitsIntoShards) {
    const TemporaryDirectory directory;
    const auto target = directory.path() / "model";
    write_model(target, tiny_config(), {.dtype = core::DType::bf16, .max_shard_bytes = 1500});
    expect_exact(target, tiny_config());

    const auto index = core::parse_json(core::read_text(target / "model.safetensors.index.json"), "index");
    std::int64_t bytes = 0;
    for (const auto& spec : expected_tensors(tiny_config())) bytes += 2 * element_count(spec.shape);
    EXPECT_EQ(index["metadata"]["total_size"], bytes);
    EXPECT_EQ(index["weight_map"]["model.embed_tokens.weight"], "model-00001-of-00006.safetensors");
    EXPECT_EQ(index["weight_map"].size(), expected_tensors(tiny_config()).size());
    for (int shard = 1; shard <= 6; ++shard) {
        const auto file = core::read_text(target / fmt::format("model-{:05}-of-00006.safetensors", shard));
        const auto header_bytes = static_cast<unsigned char>(file[0]) + 256u * static_cast<unsigned char>(file[1]);
        EXPECT_EQ(header_bytes % 8, 0u) << "the data begins at a multiple of 8 bytes";
        EXPECT_LE(file.size() - 8 - header_bytes, 1500u);
    }
}

TEST(CheckpointWriter, TakesRowsInAnyOrder) {
    const TemporaryDirectory directory;
    const auto config = tiny_config();
    const auto specs = expected_tensors(config);
    CheckpointWriter writer(directory.path() / "model", specs, {.dtype = core::DType::f32});
    for (std::size_t i = 0; i < specs.size(); ++i) {
        const auto values = exact_values(static_cast<std::size_t>(element_count(specs[i].shape)), static_cast<int>(i));
        const std::size_t width = values.size() / static_cast<std::size_t>(specs[i].shape[0]);
        const std::span<const float> all(values);
        writer.write_rows(specs[i].name, 1, all.subspan(width));
        writer.write_rows(specs[i].name, 0, all.first(width));
    }
    writer.add_file("config.json", config_to_json(config, {}).dump());
    writer.finish();
    expect_exact(directory.path() / "model", config);
}

TEST(CheckpointWriter, LeavesTheTargetUntouchedWhenInterrupted) {
    const TemporaryDirectory directory;
    const auto target = directory.path() / "model";
    write_model(target, tiny_config(), {});
    {
        CheckpointWriter writer(target, expected_tensors(tiny_mla_config()), {.replace = true});
        write_all(writer, expected_tensors(tiny_mla_config()));
        writer.add_file("config.json", "{}");
    }
    expect_exact(target, tiny_config());
    EXPECT_EQ(names_in(directory.path()), std::vector<std::string>{"model"});
    { CheckpointWriter writer(directory.path() / "other", expected_tensors(tiny_config()), {}); }
    EXPECT_EQ(names_in(directory.path()), std::vector<std::string>{"model"});
}

TEST(CheckpointWriter, ReplacesAModelOnlyWhenAsked) {
    const TemporaryDirectory directory;
    const auto target = directory.path() / "model";
    write_model(target, tiny_config(), {});
    EXPECT_THAT(error_of([&] { write_model(target, tiny_mla_config(), {}); }),
                HasSubstr("already exists; choose another name; convert replaces a model with --force"));
    write_model(target, tiny_mla_config(), {.replace = true});
    expect_exact(target, tiny_mla_config());
    EXPECT_EQ(names_in(directory.path()), std::vector<std::string>{"model"});
}

TEST(CheckpointWriter, NeverReplacesASourceOrAModelWithOtherThings) {
    const TemporaryDirectory directory;
    const auto target = directory.path() / "model";
    write_model(target, tiny_config(), {});
    const auto refusal = [&] { return error_of([&] { write_model(target, tiny_config(), {.replace = true}); }); };
    fs::create_directory(target / "notes");
    EXPECT_THAT(refusal(), HasSubstr("something else"));
    fs::remove(target / "notes");
    core::write_text(target / "thesis", "years of work");
    EXPECT_THAT(refusal(), HasSubstr("something else"));
    fs::remove(target / "thesis");
    EXPECT_EQ(refusal(), "");
    fs::remove(target / "conversion.json");
    EXPECT_THAT(refusal(), HasSubstr("something else"));
    expect_exact(target, tiny_config());
}

TEST(CheckpointWriter, NeverReplacesWhatIsNoModel) {
    const TemporaryDirectory directory;
    const auto target = directory.path() / "photos";
    fs::create_directory(target);
    core::write_text(target / "cat.jpg", "meow");
    EXPECT_THAT(error_of([&] { write_model(target, tiny_config(), {.replace = true}); }),
                HasSubstr("photos: exists and holds something else than a converted model, so it is not replaced; "
                          "choose another name"));
    EXPECT_EQ(core::read_text(target / "cat.jpg"), "meow");
    core::write_text(directory.path() / "notes.txt", "text");
    EXPECT_THAT(error_of([&] { write_model(directory.path() / "notes.txt", tiny_config(), {.replace = true}); }),
                HasSubstr("something else than a converted model"));
}

TEST(CheckpointWriter, SaysWhenTheDiskIsTooSmall) {
    const TemporaryDirectory directory;
    const std::vector<TensorSpec> specs{{"huge", {1, std::int64_t{1} << 48}}};
    EXPECT_THAT(error_of([&] { CheckpointWriter writer(directory.path() / "model", specs, {}); }),
                HasSubstr("model: not enough free disk space, expected 562949.95 GB, got "));
    EXPECT_THAT(names_in(directory.path()), IsEmpty());
}

TEST(CheckpointWriter, RefusesValuesThatAreNotFinite) {
    const TemporaryDirectory directory;
    const std::vector<TensorSpec> specs{{"a", {2}}};
    const float limits[] = {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(), 70000.f};
    for (const float value : limits) {
        CheckpointWriter writer(directory.path() / "model", specs, {.dtype = core::DType::f16});
        const std::vector<float> values{1, value};
        EXPECT_THAT(error_of([&] { writer.write("a", values); }),
                    HasSubstr("tensor 'a' would hold values that are not finite in f16"));
    }
}

TEST(CheckpointWriter, HoldsItsCallerToTheDeclaration) {
    const TemporaryDirectory directory;
    const std::vector<TensorSpec> specs{{"a", {2, 3}}, {"b", {1}}};
    CheckpointWriter writer(directory.path() / "model", specs, {});
    const std::vector<float> six(6);
    EXPECT_THROW(writer.write("c", six), std::logic_error);
    EXPECT_THROW(writer.write("b", six), std::logic_error);
    EXPECT_THROW(writer.write_rows("a", 1, six), std::logic_error);
    writer.write("a", six);
    EXPECT_THROW(writer.write("a", six), std::logic_error) << "every row once";
    EXPECT_THROW(writer.finish(), std::logic_error) << "b is missing";
    EXPECT_THROW(writer.add_file("../x", ""), std::logic_error);
    EXPECT_THROW(CheckpointWriter(directory.path() / "twice", {{"a", {1}}, {"a", {1}}}, {}), std::logic_error);
}

}  // namespace
}  // namespace mha2mla::checkpoint
