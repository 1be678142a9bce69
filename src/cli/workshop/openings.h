#pragma once

#include <array>
#include <string_view>

namespace mha2mla::cli {

/// What the windows of sampled calibration text begin with, one after the other: a model left to itself writes the kind
/// of text that it saw most, and a conversion is judged on every kind. With them perplexities on books, stories,
/// documentation, code and an encyclopedia are 2 to 10 % lower (docs/results).
inline constexpr std::array<std::string_view, 16> openings{
    "",
    "The Danube is the second-longest river in Europe. It rises in the Black Forest of Germany and",
    "It was late in the autumn when the old woman came back to the village. Nobody at the inn remembered her, and",
    "import os\nimport sys\nfrom collections import defaultdict\n\n\ndef read_table(path, separator=\",\"):\n",
    "\"You are late,\" said Anna, without looking up.\n\n\"I know. I am sorry. The train",
    "# Installation\n\nThis package needs version 3.8 or later. To install it from source, run\n\n```\n",
    "Theorem. Let f be a continuous function on the interval [a, b]. Then\n\nProof. Suppose that",
    "LONDON, March 14 - The government said on Tuesday that it would",
    "Dear Mr. Harrison,\n\nThank you for your letter of the 3rd. I am writing to",
    "| Year | Country | Population | Area (km2) |\n| --- | --- | --- | --- |\n| 1990 |",
    "Question: Why does the moon always show the same side to the earth?\n\nAnswer:",
    "CHAPTER I.\n\nThere lived, in the reign of the late king, a gentleman of",
    "Abstract. We study the effect of temperature on the growth of bacteria in soil. Samples were",
    "To make the soup, wash the vegetables and",
    "#include <stdio.h>\n#include <stdlib.h>\n\n/* Reads numbers from a file and",
    "Once upon a time, there was a little girl named Lily. She loved to",
};

}  // namespace mha2mla::cli
