"""Recipes as people, editors, disks and strangers write them: one odd or damaged recipe a seed."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

from faults.recipe_bytes import BYTES
from faults.recipe_draft import ARRAYS, COUNTS, EXTREMES, HUGE, LEAVES, NUMBERS, OTHERS, PATHS, SIZES, Draft, Mutant

from fastuda.errors import FastudaError
from fastuda.recipe.file import load_recipe


def _any(draft: Draft, names: list[str], values: tuple[str, ...] | list[str]) -> None:
    for _ in range(draft.roll.choice([1, 1, 1, 3])):
        draft.put(draft.roll.choice(names), draft.roll.choice(values))


def _field(names: Callable[[], list[str]], *values: str) -> Callable[[Draft], None]:
    return lambda draft: _any(draft, names(), values)


def _all() -> list[str]:
    return [*LEAVES]


def _pair(draft: Draft) -> None:
    side = draft.roll.choice
    sides = ["0", "1", "2", "3", "7", "8", "9", "31", "32", "33", "32768", "32769", HUGE, "-5", "1.5"]
    for _ in range(draft.roll.choice([1, 2])):
        draft.put(side(SIZES), f"[{side(sides)}, {side(sides)}]")


def _nul(draft: Draft) -> None:
    name = draft.roll.choice(_all())
    draft.put(*draft.roll.choice([(name, '"\\u0000"'), (name, "\0"), ('"a\\u0000b"', "1"), (name, '["x\\u0000"]')]))


def _nested(draft: Draft) -> None:
    depth = draft.roll.choice([17, 100, 1000, 20_000])
    name = draft.roll.choice([*_all(), "x"])
    draft.put(name, draft.roll.choice(["[" * depth + "]" * depth, "{a=" * depth + "1" + "}" * depth, "[" * depth]))


def _dotted(draft: Draft) -> None:
    parts = draft.roll.choice([17, 500, 10_000])
    key = draft.roll.choice([".".join(["a"] * parts), ".".join(['"b c"'] * parts), " . ".join(["train"] * parts)])
    draft.head += draft.roll.choice([f"{key} = 1\n", f"[{key}]\n", f"[[{key}]]\n", f"x = {{ {key} = 1 }}\n"])


def _unknown(draft: Draft) -> None:
    section = draft.roll.choice(["", "train.", "model.", "warmup.optimizer.", "nowhere.", "source.ids.", "seed."])
    name = draft.roll.choice(["iteratons", "x", '""', '"a b"', '"\\u001b[31m"', '"a.b"', "depth", "-", "_", '"[red]"'])
    draft.put(section + name, draft.roll.choice(["1", "{ }", '"x"']))


def _lines(draft: Draft) -> None:
    """Lines that TOML refuses, or that say one thing twice."""
    draft.head += draft.roll.choice(
        [
            "seed = 1\nseed = 2\n", "[train]\n", "[[train]]\n", "train = 3\n", "= 1\n", "x\n", "[\n", "]\n", 'y = "\n',
            "y = '''\n",
            "seed = 01\n", "seed = 1__0\n", "\x01 = 1\n", "# \x1b[2J\n", "a.b = 1\na = 2\n", "[a]\n[a]\n", "y = \\x\n",
            'y = "\\ud800"\n',
            "\r", "seed = 1\r\nseed=2\r", "\u2028", "x = 1979-99-99\n", "\N{BYTE ORDER MARK}",
        ]
    )  # fmt: skip


def _base_self(draft: Draft) -> None:
    draft.head = f"base = {json.dumps(draft.roll.choice([draft.path.name, str(draft.path), './' + draft.path.name]))}\n"


def _base_circle(draft: Draft) -> None:
    """Bases in a circle, or very many, or through links."""
    length = draft.roll.choice([1, 2, 5, 50])
    closes = draft.roll.random() < 0.6
    names = [f"{draft.seed:05d}-base{number}.toml" for number in range(length)]
    for name, following in zip(names, [*names[1:], draft.path.name if closes else "demo"], strict=True):
        (draft.folder / name).write_text(f'base = "{following}{draft.roll.choice(["", "+cmix"])}"\n')
    draft.head = f'base = "{names[0]}"\n'


def _base_odd(draft: Draft) -> None:
    odd = [
        "3",
        "[]",
        "{}",
        "true",
        '""',
        '"demo+"',
        '"+"',
        '"demo+nothing"',
        '"demmo"',
        '"/"',
        '"."',
        '"x.toml"',
        '"~nosuchuser/x.toml"',
    ]
    odd += [
        '"' + "x" * 9999 + '"',
        '"demo' + "+cmix" * 99 + '"',
        '"\\u001b[2J"',
        '"..toml"',
        '".toml"',
        '"demo/../demo"',
        '"demo\\n"',
    ]
    draft.head = f"base = {draft.roll.choice([*odd, json.dumps(draft.special() + '.toml')])}\n"


def _base_special(draft: Draft) -> None:
    other = Path(draft.special())
    path = draft.folder / f"{draft.seed:05d}-link.toml"
    path.symlink_to(other)
    draft.head = f'base = "{path.name}"\n'


def _home(draft: Draft) -> None:
    draft.put(draft.roll.choice([*PATHS, "model.weights", "source.images"]), '"~nosuchuser/x"')


def _place(draft: Draft) -> None:
    """A folder, a list or a weights file that is something else."""
    draft.put(draft.roll.choice([*PATHS, "model.weights"]), json.dumps(draft.special()))


def _listing(draft: Draft) -> None:
    side = draft.roll.choice(["source", "target"])
    path = draft.folder / f"{draft.seed:05d}.txt"
    odd = [
        b"",
        b"\n\n",
        b"x\n",
        b"\xff\xfe",
        b"\xff",
        b"\0" * 99,
        b"a\0b",
        b"#\n",
        b"\x1b[2J\n",
        b"x" * 10**6,
        b"0\n" * 10**4,
        b"00000\n00001\n",
    ]
    path.write_bytes(draft.roll.choice(odd))
    draft.put(f"{side}.listing", json.dumps(draft.special() if draft.roll.random() < 0.4 else str(path)))


_GLOBS = (
    "", "/", "//", "*", "**", "**/**/**/**/*", "*/" * 40 + "*.png", "*" * 200, "?" * 300, "[", "[z-a]*", "[!]*", "[]]*",
    "[a&&b]*", "[[:x:]]*",
    "{a,b}" * 12, "{" * 500, "{,}", "{a,{b,c}}", "images/{}.png", "../../*.png", "images/../images/*.png",
    "~nosuchuser/*.png", "~", "images/*\n.png",
    "\x1b[2J*", "x" * 5000, "images/" + "a" * 300 + "*", "images\\*.png", "images/*.png/", "(.*)+", "(a+)+$", "%s",
    "images/*.PNG", "./images/./*.png",
    "{1..9}.png", "images/*.{png", "images/*.png}", "**.png", "images/**", ".*", "images/?????.png", "*\u202e", "[^a]*",
    "[\\]*",
)  # fmt: skip


def _globs(draft: Draft) -> None:
    text = json.dumps(draft.roll.choice(_GLOBS))
    several = ["[]", f"[{text}]", f"[{text}, {text}]", "[" + '"images/*.png", ' * 2000 + "]"]
    value = draft.roll.choice(several) if draft.roll.random() < 0.3 else text
    side = draft.roll.choice(["source", "target"])
    draft.put(f"{side}.layout", '"folder"')
    for key in ("images", "labels", "val_images", "val_labels"):
        odd = draft.roll.random() < 0.4
        draft.put(f"{side}.{key}", value if odd else f'"{key.rpartition("_")[2]}/*.png"')


def _ids(draft: Draft) -> None:
    side = draft.roll.choice(["source", "target"])
    odd = [
        "-1",
        "256",
        "65535",
        "65536",
        HUGE,
        "x",
        '""',
        '"1.5"',
        '" 1"',
        '"0x1"',
        '"1_0"',
        "true",
        "1e3",
        '"\\u0661"',
        "9" * 5000,
        "00",
    ]
    keys = draft.roll.sample(odd, draft.roll.choice([0, 1, 2]))
    names = ['"road"', '"ignore"', '"nothing"', '""', "3", "[]", '"\\u001b"', '"road"']
    entries = [f"{key} = {draft.roll.choice(names)}" for key in keys]
    if draft.roll.random() < 0.2:
        entries = [f"{number} = {draft.roll.choice(names)}" for number in range(3000)]
    draft.put(f"{side}.layout", '"folder"')
    draft.put(f"{side}.images", '"images/*.png"')
    draft.put(f"{side}.ids", "{ " + ", ".join(entries) + " }")


def _classes(draft: Draft) -> None:
    many = [json.dumps([f"c{number}" for number in range(count)]) for count in (1, 2, 254, 255, 256, 50_000)]
    odd = [
        '""',
        "[]",
        '["road", "road"]',
        '[""]',
        "[1]",
        '"road"',
        '["a\\nb", "\\u001b[2J"]',
        '["ignore"]',
        "[[]]",
        '["' + "x" * 9999 + '"]',
    ]
    draft.put("classes.names", draft.roll.choice([*many, *odd]))
    if draft.roll.random() < 0.3:
        draft.put("classes.preset", draft.roll.choice(['"cityscapes13"', '"mars"', "3", '""']))


def _palette(draft: Draft) -> None:
    colour = draft.roll.choice(
        ["[0, 0, 0]", "[256, 0, 0]", "[-1, 0, 0]", "[0, 0]", "[0.5, 0, 0]", '"red"', "[nan, 0, 0]", f"[{HUGE}, 0, 0]"]
    )
    count = draft.roll.choice([0, 1, 18, 19, 20, 5000])
    draft.put("classes.palette", f"[{', '.join([colour] * count)}]")


def _subsets(draft: Draft) -> None:
    table = draft.roll.choice(
        ['{ "" = ["road"] }', '{ a = [] }', '{ a = ["x"] }', '{ "\\u001b[2J" = ["road"] }', "{ a = 1 }",
        '{ a = ["road", "road"] }', '{ "a/b" = ["car"] }',
         "{ " + ", ".join(f'a{number} = ["road"]' for number in range(2000)) + " }", '{ a = ["' + "x" * 9999 + '"] }']
    )  # fmt: skip
    draft.put("eval.subsets", table)
    if draft.roll.random() < 0.3:
        draft.put(
            "source_mix.long_tail", draft.roll.choice(["[]", '["x"]', '["road", "road"]', '"road"', '["\\u0007"]'])
        )


def _scales(draft: Draft) -> None:
    number = draft.roll.choice(["0", "1e-9", "0.01", "4", "4.1", "nan", "inf", "-1", "1e308", "1"])
    draft.put("eval.scales", f"[{', '.join([number] * draft.roll.choice([0, 1, 2, 32, 33]))}]")


def _switches(draft: Draft) -> None:
    """Sound values that contradict one another."""
    for name in draft.roll.sample([name for name, kind in LEAVES.items() if "bool" in kind], 6):
        draft.put(name, draft.roll.choice(["true", "false"]))
    for name, value in (("warmup.iterations", "0"), ("train.iterations", "0"), ("train.batch_size", "1")):
        if draft.roll.random() < 0.3:
            draft.put(name, value)


def _set(draft: Draft) -> None:
    draft.settings += draft.roll.choice(
        [
            ["x"], ["="], ["=1"], ["seed"], ["seed="], ["seed=="], [".=1"], ["..=1"], ["train.=1"], [".train=1"],
            ["seed.x=1"], ["train=1"],
            ["train={}"], ["a" * 9999 + "=1"], [".".join("a" * 3000) + "=1"], ["seed=" + "9" * 5000],
            ["seed=" + "[" * 20_000], ["seed=1\nx=2"],
            ["\x1b[2J=1"], ["seed=\x1b[2J"], ["train.iterations=10**20"], ["seed=0x"], ["base=x"], ["base.x=1"],
            ["description=a\nb"], ["SEED=1"],
            ["seed =1"], [" seed = 1 "], ["seed=1 # no"], ["classes.names=a,b"], ["seed=1"] * 3000, ["\udcff=1"],
            ["description=\udcff"], ["seed=\u0661"],
        ]
    )  # fmt: skip


def _variants(draft: Draft) -> None:
    draft.variants = draft.roll.choice(
        [
            "+",
            "++",
            "+cmix+",
            "+cmixx",
            "+\x1b[2J",
            "+cmix" * 33,
            "+" * 5000,
            "+cmix+htcm",
            "+cmix/x",
            "+~",
            "+released",
        ]
    )


def _control(draft: Draft) -> None:
    text = draft.roll.choice(
        ["\\u001b]0;x\\u0007", "\\u202e\\u2066", "a\\nb", "\\r", "[bold red]x[/]", "\\U0001F600", "\\t", "{0}%s"]
    )
    draft.put(
        draft.roll.choice(["description", "source.split", "target.val_split", "model.weights", "model.sha256"]),
        f'"{text}"',
    )


def _weights(draft: Draft) -> None:
    odd = [
        "",
        "imagenett",
        "http://127.0.0.1:9/x.pth",
        "http://",
        "ftp://x",
        "file:///etc/passwd",
        "random ",
        "/",
        ".",
        "x.pth",
        "https://[",
        "http://\x7f",
    ]
    draft.put("model.weights", json.dumps(draft.roll.choice(odd)))
    if draft.roll.random() < 0.4:
        draft.put(
            "model.sha256",
            draft.roll.choice(['""', '"x"', '"' + "a" * 64 + '"', '"' + "a" * 65 + '"', '"aaaaaaa"', "3"]),
        )


def _odd_array(draft: Draft) -> None:
    one = draft.roll.choice(["1", "0", "-1", "nan", '"x"', "[]", "{}", "1e9", "true"])
    draft.put(draft.roll.choice(ARRAYS), f"[{', '.join([one] * draft.roll.choice([0, 1, 2, 3, 17, 50_000]))}]")


def _plain(draft: Draft) -> None:
    """No fault at all."""


_KINDS: dict[str, Callable[[Draft], None]] = {
    "NUL": _nul,
    "many digits": _field(lambda: NUMBERS, "9" * 5000, "-" + "9" * 5000, "0." + "9" * 5000, "1e" + "9" * 50),
    "nested": _nested, "dotted": _dotted, "endless iterations": _field(
        lambda: [name for name in LEAVES if name.endswith("iterations")], HUGE, "10**20", "1e20", "1_000_000_001",
        "2147483648"),
    "negative": _field(lambda: NUMBERS, "-1", "-0.5", "-2147483648", "-1e300"),
    "no number": _field(lambda: NUMBERS, "nan", "inf", "-inf", "-nan", "1e999"),
    "other type": _field(_all, *OTHERS), "extreme": _field(lambda: NUMBERS, *EXTREMES),
    "extreme count": _field(lambda: COUNTS, *EXTREMES),
    "size": _pair, "array": _odd_array, "unknown": _unknown, "lines": _lines, "base is itself": _base_self,
    "bases": _base_circle, "odd base": _base_odd,
    "special base": _base_special, "home": _home, "place": _place, "listing": _listing, "globs": _globs, "ids": _ids,
    "classes": _classes,
    "palette": _palette, "subsets": _subsets, "scales": _scales, "switches": _switches, "settings": _set,
    "variants": _variants, "control": _control,
    "weights": _weights, "sound": _plain,
}  # fmt: skip


KINDS = (*_KINDS, *BYTES, "special file")
"""The kinds of mutation; seed n makes kind n modulo their number."""


def mutated(seed: int, folder: Path) -> Mutant:
    """Write one recipe, and what it may need, into `folder`; the same seed makes the same one.

    What is spoilt is a demo that trains in seconds. Every kind occurs within `len(KINDS)` seeds in a row, and some
    leave a valid recipe: see `Mutant.valid` and `Mutant.tiny`. Names begin with the seed.
    """
    kind = KINDS[seed % len(KINDS)]
    draft = Draft(random.Random(seed), seed, folder)
    if kind in _KINDS:
        _KINDS[kind](draft)
    text = draft.text().encode("utf-8", "surrogatepass")
    if kind in BYTES:
        text = BYTES[kind](draft.roll, text)
    if kind == "special file":
        draft.path.symlink_to(draft.special())
    else:
        draft.path.write_bytes(text)
    settings = [part for setting in draft.settings for part in ("--set", setting)]
    return Mutant(kind, draft.path, [f"{draft.path}{draft.variants}", *settings])


def refusal(mutant: Mutant) -> str | None:
    """What `load_recipe` says of it; None for a valid one."""
    try:
        load_recipe(mutant.arguments[0], mutant.settings)
    except FastudaError as error:
        return str(error)
    return None
