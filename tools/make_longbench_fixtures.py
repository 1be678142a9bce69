"""Makes tests/fixtures/eval/longbench_scores.json: what the published metrics of LongBench say of made-up answers.

    python tools/make_longbench_fixtures.py DATA/eval/longbench-config

Needs rouge, jieba and fuzzywuzzy, the latter without python-Levenshtein, as LongBench's requirements.txt has it: then its
ratio is difflib's. Every pair is seeded. Chinese pairs are stored with jieba's cuts, so that the tests of the metrics need
no dictionary.
"""

import importlib.util
import logging
import random
import sys
from pathlib import Path

import jieba
from fixture_io import write_json
from fuzzywuzzy import fuzz

OUT = Path(__file__).parent.parent / "tests/fixtures/eval/longbench_scores.json"
ENGLISH = """the a an cat dog Lighthouse keeper U.S. state's river don't Naïve café Straße ΟΔΟΣ İstanbul data 1990 3.14
(maybe) "quoted" over-the-top an, the. A; report government agency said that on in of to and was not theory ana
therefore answer Paris London 42 000 percent % $5 Mr. Smith café\u0301 na\u00efve \u00c9TUDE \u0661\u0662 x_y""".split()
SPACES = [" ", " ", " ", " ", " ", "  ", "\n", "\t", "\u00a0", "\u3000", "\x1f"]
CHINESE = """中国 的 会议 记录 总结 我们 今天 讨论 了 北京 市政府 关于 经济 发展 的 报告 他来到了网易杭研大厦 小明硕士毕业于中国科学院计算所
研究生命的起源 长春市长春药店 李晓龙 韩冰 欧阳修 龘靐齉 一九九八年 2023年 3.5% GPT-4 A股 B超 C++ 人工智能 。 ， ！ ？ 、 《三体》 （注） . - _x 85%
工信处女干事 每月经过下属科室 都要亲口交代 24口交换机 技术性器件的安装工作 乒乓球拍卖完了 永和服装饰品有限公司 吃葡萄不吐葡萄皮""".split()
CODE = ["    return self.x", "for (int i = 0; i < n; ++i) {", "# a remark", "// another", "```python", "x = foo(a, b)",
        "    if value is None:", "import os", "", "public static void main(String[] args)", "print('héllo')",
        "    self.assertEqual(result, expected)", "\treturn nullptr;", "url = 'http://x'", "}"]
CLASSES = ["City", "Other city", "Country", "Other entity", "entity", "Individual", "Title", "Date", "ate", "Dat",
           "Group or organization of persons", "Human group", "group", "农业", "农业、农村", "农村", "财经"]


def published_metrics(folder):
    spec = importlib.util.spec_from_file_location("metrics", Path(folder) / "metrics.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def changed(draw, items, vocabulary):
    """The items with some left out, replaced, repeated, moved."""
    result = []
    for item in items:
        chance = draw.random()
        if chance < 0.1:
            continue
        result += [draw.choice(vocabulary)] if chance < 0.2 else [item, item] if chance < 0.25 else [item]
    if len(result) > 3 and draw.random() < 0.3:
        cut = draw.randrange(len(result))
        result = result[cut:] + result[:cut]
    return result


def english_pair(draw):
    words = [draw.choice(ENGLISH) for _ in range(draw.choice([1, 2, 3, 6, 20, 60]))]
    other = changed(draw, words, ENGLISH) if draw.random() < 0.8 else draw.choices(ENGLISH, k=draw.randrange(12))
    return [write(draw, other), write(draw, words)]


def write(draw, words):
    """With several kinds of space, sentences, and now and then upper case."""
    text = ""
    for word in words:
        text += (word.upper() if draw.random() < 0.1 else word) + (". " if draw.random() < 0.12 else draw.choice(SPACES))
    return text if draw.random() < 0.5 else text.strip()


def chinese_pair(draw):
    words = [draw.choice(CHINESE) for _ in range(draw.choice([1, 2, 4, 10, 25]))]
    between = [""] * 6 + [" ", "\r\n", "\n"]
    pair = [changed(draw, words, CHINESE) if draw.random() < 0.85 else draw.choices(CHINESE, k=4), words]
    return ["".join(word + draw.choice(between) for word in side) for side in pair]


def code_pair(draw):
    truth = draw.choice([line for line in CODE if line])
    if draw.random() < 0.3:  # longer than 200 characters: difflib leaves frequent ones aside
        truth = "; ".join(draw.choices([line.strip() for line in CODE if line], k=draw.randrange(14, 24)))
    first = "".join(changed(draw, list(truth), list("abcxyz(){} =+"))) if draw.random() < 0.8 else draw.choice(CODE)
    lines = [draw.choice(CODE) for _ in range(draw.randrange(3))] + [first] + draw.choices(CODE, k=draw.randrange(3))
    return ["\n" * draw.choice([0, 0, 1, 2]) + "\n".join(lines), truth]


def class_pair(draw):
    classes = draw.sample(CLASSES, draw.randrange(3, 10))
    if draw.random() < 0.2:
        classes.append(draw.choice(classes))
    truth = draw.choice(classes)
    named = draw.choices(classes + ["something else"], k=draw.randrange(4))
    named = named + [truth] if draw.random() < 0.6 else named
    return [" ".join(named), truth, classes]


def number_text(draw, more):
    pieces = ["Paragraph ", "段落", "No. ", "", ", ", " and ", "x", "\u0663", "１２"] + more
    return "".join(draw.choice(pieces) + draw.choice(["", "7", str(draw.randrange(30))]) for _ in range(draw.randrange(6)))


def number_pair(draw, label):
    number = str(draw.randrange(30))
    return [number_text(draw, [label + number + ". ", number + "; "] * 5), label + number]


ODD_ENGLISH = [["", ""], ["", "a"], ["the", "an"], ["...", "..."], [" ", "word"], [".", "word"], ["!?", "!?"],
               ["word " * 80, "word"], ["a b c d e f g. b d f", "g f e d c b a. a c e g"], ["x. ", " .x"],
               ["A\u0301 the\u0301 a", "a\u0301"], ["ΣΑΣ Σ ΣΣ'Σ.", "σας σ σσ'ς"], ["Word\x1cword\x85word", "word word"]]
ODD_CODE = [["", ""], ["", "x"], ["# x", "x"], ["x\n", "x"], ["\n\n`", ""], ["ab", "ba"],
            ["ab" * 150, "ba" * 150], ["abc " * 60, "abd " * 60], ["aaab", "b" * 199 + "a"], ["aaab", "b" * 200 + "a"]]
ODD_CHINESE = [["", ""], ["。", "。"], ["中", "中"], ["a.b", "A.B"], ["3.14.15%x", "1.5%%"], ["  ", "中"], ["龘龘龘", "龘"],
               ["\r\n\n\r", "中\r\n"], ["😀中国😀", "中国"], ["-.-", "a-"], ["1.5.", "+1.5%a"]]


def scored(pairs, *metrics):
    return [[*pair, *(metric(*pair) for metric in metrics)] for pair in pairs]


def make_sections(published, draw):
    english = [english_pair(draw) for _ in range(140)] + ODD_ENGLISH
    chinese = [chinese_pair(draw) for _ in range(110)] + ODD_CHINESE
    code = [code_pair(draw) for _ in range(100)] + ODD_CODE
    classes = [class_pair(draw) for _ in range(80)]
    counts = [[number_text(draw, ["7"]), draw.choice(["7", "7", "12"])] for _ in range(40)]
    english_retrieval = [number_pair(draw, "Paragraph ") for _ in range(40)]
    chinese_retrieval = [number_pair(draw, "段落") for _ in range(40)]
    return {
        "english": scored(english, published.qa_f1_score, published.rouge_score),
        "chinese": [[[jieba.lcut(text) for text in pair], published.qa_f1_zh_score(*pair), published.rouge_zh_score(*pair)]
                    for pair in chinese],
        "code": scored(code, published.code_sim_score),
        "classes": [[*row, published.classification_score(*row[:2], all_classes=row[2])] for row in classes],
        "counts": scored(counts, published.count_score),
        "retrieval": scored(english_retrieval, published.retrieval_score),
        "retrieval_zh": scored(chinese_retrieval, published.retrieval_zh_score),
    }


def main():
    if fuzz.SequenceMatcher.__module__ != "difflib":
        sys.exit("uninstall python-Levenshtein: LongBench is scored with difflib")
    jieba.setLogLevel(logging.WARNING)
    write_json(OUT, make_sections(published_metrics(sys.argv[1]), random.Random(7)))


if __name__ == "__main__":
    main()
