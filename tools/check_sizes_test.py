#!/usr/bin/env python3
"""Proves that tools/check_sizes.py can fail, and that it finds functions where C++ hides them."""

import unittest

from check_sizes import FILE_LINES, FUNCTION_LINES, KERNEL_LINES, TEST_FILE_LINES, check
from cpp_functions import scan

TRICKY = r"""
#define OPEN {
template <typename T = std::vector<int>, typename U>
requires(sizeof(T) > 2) struct Box : Base<T, U> {
public:
    // A comment with a brace { and a "quote
    explicit Box(int a, std::function<void(int, int)> f = {}) : a_(a), b_{a, {1}} {
        const char* text = "}}" R"x(})x";
        call([&] { return '}' + 20'000; });
    }
    bool operator()(int x, int y) const { return x < y; }
    int (*pointer)(int, int, int) = nullptr;
    std::map<std::string, int> member{{"a", 1}};
    enum class Kind { one, two };
};
constexpr int table[] = {1, 2, 3};
namespace a::b {
auto pair(std::map<int, std::pair<int, int>> m) -> std::pair<int, int> {
    return {1, 2};
}
TEST(Suite, Name) { EXPECT_EQ(pair({}), 1); }
}  // namespace a::b
template <>
class Ref<int(int, int)> {
    void declared(int a, int b) const;
};
"""


def function_of(lines, parameters="", name="f"):
    return f"void {name}({parameters}) {{\n" + "    work();\n" * (lines - 2) + "}\n"


class ScannerTest(unittest.TestCase):
    def test_finds_each_function_once(self):
        found = [(f.name, f.lines, f.parameters) for f in scan(TRICKY)]
        in_box = [("Box", 4, 2), ("operator_call", 1, 2), ("pointer", 1, 3)]
        expected = [*in_box, ("pair", 3, 1), ("TEST(Suite, Name)", 1, 2), ("declared", 1, 2)]
        self.assertEqual(found, expected)

    def test_counts_the_parameters_of_function_pointers(self):
        self.assertEqual(scan("struct S { void (*f)(int a, int b); };")[0].parameters, 2)

    def test_line_is_that_of_the_signature(self):
        self.assertEqual(scan("class C {\npublic:\n    // why\n    int f() { return 1; }\n};")[0].line, 4)


class LimitsTest(unittest.TestCase):
    def violations(self, text, where="src/core/x.cpp", exceptions=None):
        return check({where: text}, exceptions or {})[0]

    def test_function_length(self):
        self.assertEqual(self.violations(function_of(FUNCTION_LINES)), [])
        self.assertIn("src/core/x.cpp:1: f has 61 lines", self.violations(function_of(FUNCTION_LINES + 1))[0])

    def test_kernel_length(self):
        where = "src/kernels/cpu/x.cpp"
        self.assertEqual(self.violations(function_of(KERNEL_LINES), where), [])
        self.assertEqual(len(self.violations(function_of(KERNEL_LINES + 1), where)), 1)

    def test_parameters(self):
        self.assertEqual(self.violations("void f(int a, int b, int c, int d, int e);"), [])
        wrong = self.violations("void f(int a, int b, int c, int d, std::map<int, int> e, int g);")
        self.assertIn("6 parameters", wrong[0])

    def test_file_length(self):
        self.assertEqual(self.violations("\n" * FILE_LINES), [])
        self.assertEqual(len(self.violations("\n" * (FILE_LINES + 1))), 1)
        self.assertEqual(self.violations("\n" * TEST_FILE_LINES, "src/core/x_test.cpp"), [])
        self.assertEqual(len(self.violations("\n" * (TEST_FILE_LINES + 1), "tests/x_test.cpp")), 1)

    def test_median_and_90th_percentile(self):
        short = "".join(function_of(8, name=f"s{i}") for i in range(8))
        self.assertIn("median", self.violations("".join(function_of(13, name=f"f{i}") for i in range(9)))[0])
        self.assertIn("90th percentile", self.violations(short + function_of(40) + function_of(41))[0])

    def test_exceptions_hold_and_must_be_needed(self):
        exceptions = {("src/core/x", "f", "lines"): "a reason"}
        self.assertEqual(self.violations(function_of(61), exceptions=exceptions), [])
        self.assertIn("no exception", self.violations(function_of(9), exceptions=exceptions)[0])


if __name__ == "__main__":
    unittest.main()
