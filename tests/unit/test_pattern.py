"""Patterns mean what they mean to Ruby's Dir.glob, and never lead out of the root."""

from __future__ import annotations

import contextlib
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from byteback.errors import RefusedError
from byteback.model.glob.pattern import (
    Component,
    Deep,
    Literal,
    Wild,
    compile_patterns,
    escape_name,
    expand_braces,
    make_absolute,
)


def components(text: str) -> tuple[Component, ...]:
    """The components of a pattern without braces."""
    [pattern] = compile_patterns([text])
    return pattern.components


def matches(component: str, name: str) -> bool:
    """True if a pattern of one component matches a name."""
    [compiled] = components("/" + component)
    if isinstance(compiled, Wild):
        return compiled.matches(name)
    return compiled == Literal(name)


@pytest.mark.parametrize(
    ("component", "name", "expected"),
    [
        ("*", "a", True),
        ("*", "", True),
        ("*", ".a", False),
        (".*", ".a", True),
        ("\\.*", ".a", True),
        ("[.]a", ".a", False),
        ("?a", ".a", False),
        ("a*", "a.b", True),
        ("*a", "a", True),
        ("a*b*c", "aXbYc", True),
        ("a*b*c", "abbc", True),
        ("a*b*c", "acb", False),
        ("*.tar.*", "x.tar.gz", True),
        ("**b", "aab", True),
        ("a**", "abc", True),
        ("?", "a", True),
        ("?", "ab", False),
        ("?", "\n", True),
        ("a*", "a\nb", True),
        ("?", "ö", True),
        ("?", "\udcff", True),
        ("[abc]", "b", True),
        ("[abc]", "d", False),
        ("[a-c]x", "bx", True),
        ("[a-c]", "d", False),
        ("[c-a]", "b", False),
        ("[c-a]", "a", True),
        ("[!a-c]", "d", True),
        ("[^a-c]", "b", False),
        ("[^a-c]", "\n", True),
        ("[]", "a", False),
        ("[]a]", "a", False),
        ("[^]", "a", True),
        ("[a-]", "-", True),
        ("[-a]", "-", True),
        ("[\\]]", "]", True),
        ("[\\-]", "-", True),
        ("[a\\-c]", "b", False),
        ("[[]", "[", True),
        ("[*]", "*", True),
        ("[*]", "a", False),
        ("[a", "[a", False),
        ("a[b", "ab", False),
        ("\\[a]", "[a]", True),
        ("\\*", "*", True),
        ("\\*", "a", False),
        ("\\a", "a", True),
        ("\\\\", "\\", True),
        ("a\\", "a", True),
        ("a\\", "a\\", False),
        ("*\\", "a", True),
        ("a]", "a]", True),
        ("A", "a", False),
        ("[A-Z]", "a", False),
        ("a.c", "abc", False),
        ("$(x)|^+*", "$(x)|^+y", True),
        ("a/b", "a/b", False),
    ],
)
def test_one_component(component: str, name: str, expected: bool) -> None:
    """The rules for a single name, dot files, sets and escapes included."""
    if component == "a/b":
        assert components("/a/b") == (Literal("a"), Literal("b"))
        return
    assert matches(component, name) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{a,b}", ["a", "b"]),
        ("x{a,b}y", ["xay", "xby"]),
        ("{a,b}{c,d}", ["ac", "ad", "bc", "bd"]),
        ("{a,{b,c}d}", ["a", "bd", "cd"]),
        ("{a,}", ["a", ""]),
        ("{}", [""]),
        ("{a}", ["a"]),
        ("a}b", ["a}b"]),
        ("a,b", ["a,b"]),
        ("{a", []),
        ("{a,{b}", []),
        ("\\{a,b\\}", ["\\{a,b\\}"]),
        ("{a\\,b,c}", ["a\\,b", "c"]),
        ("{a\\},b}", ["a\\}", "b"]),
        ("/{etc,usr/lib}/x", ["/etc/x", "/usr/lib/x"]),
        ("{a,b}}", ["a}", "b}"]),
    ],
)
def test_braces(text: str, expected: list[str]) -> None:
    """Alternatives nest, escapes count, and what is never closed matches nothing."""
    assert expand_braces(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/", ()),
        ("", ()),
        ("/etc/hosts", (Literal("etc"), Literal("hosts"))),
        ("etc//hosts", (Literal("etc"), Literal("hosts"))),
        ("/etc/./hosts", (Literal("etc"), Literal("hosts"))),
        ("/etc/../hosts", (Literal("hosts"),)),
        ("/../../hosts", (Literal("hosts"),)),
        ("/etc/*/../hosts", (Literal("etc"), Literal("hosts"))),
        ("/\\.\\./\\.\\./hosts", (Literal("hosts"),)),
        ("/a\\/..\\/../b", (Literal("b"),)),
        ("/**/a", (Deep(), Literal("a"))),
        ("/**/**/a", (Deep(), Literal("a"))),
        ("/**/../a", (Literal("a"),)),
    ],
)
def test_paths_are_resolved(text: str, expected: tuple[Component, ...]) -> None:
    """Dots are folded in every spelling, and nothing leads above the root."""
    assert components(text) == expected


def test_dots_hidden_in_braces_are_resolved() -> None:
    """Braces come first: they could hide a way out of the root."""
    [*found] = compile_patterns(["/{..,.}/{..,.}/OTHER/current/etc/shadow"])
    wanted = tuple(map(Literal, ("OTHER", "current", "etc", "shadow")))
    assert [pattern.components for pattern in found] == [wanted] * 4


def test_slashes_at_the_end_and_in_sets() -> None:
    """A final slash means directories; one in a set does not divide the path."""
    [directories] = compile_patterns(["/etc/*/"])
    assert directories.directories_only
    assert not compile_patterns(["/etc/*"])[0].directories_only
    assert not compile_patterns(["/"])[0].directories_only
    [everything] = compile_patterns(["/a/**/"])
    assert everything.components == (Literal("a"), Deep())
    assert everything.directories_only
    for text in ("/a/b/.", "/a/b/\\.", "/a/b/\\", "/a/{b,b}/.", "/a/c/../b/"):
        for pattern in compile_patterns([text]):
            assert pattern == ((Literal("a"), Literal("b")), True)
    assert len(components("/x[a/b]c/d")) == 2


@pytest.mark.parametrize(
    ("text", "above"),
    [
        ("/a/**", (Literal("a"),)),
        ("/a/**/**", (Literal("a"), Deep())),
        ("/a/**/b/..", (Literal("a"),)),
        ("/a/**/**/b/..", (Literal("a"),)),
    ],
)
def test_two_stars_at_the_end_are_one(text: str, above: tuple[Component, ...]) -> None:
    """Only a slash behind them makes them any number of directories."""
    [pattern] = compile_patterns([text])
    assert pattern.components == (*above, components("/*")[0])
    assert not pattern.directories_only


def test_relative_patterns_start_in_the_working_directory() -> None:
    """Whatever characters its name holds; an alternative may be absolute."""
    assert make_absolute("a*", "/home/x") == ["/home/x/a*"]
    assert make_absolute("/a", "/home/x") == ["/a"]
    assert make_absolute("a", "/") == ["/a"]
    assert make_absolute("{/etc/a,b}", "/h") == ["/etc/a", "/h/b"]
    [odd] = make_absolute("..", "/home/[x]/{a,b}*")
    assert components(odd) == (Literal("home"), Literal("[x]"))


@pytest.mark.parametrize(
    "text", ["/{a,b}" * 40, "{" * 30_000, "{a," * 5000 + "}" * 5000, "{,}" * 25]
)
def test_explosions_end_soon(text: str) -> None:
    """A short pattern cannot make the server work for long."""
    started = time.process_time()
    with contextlib.suppress(RefusedError):
        compile_patterns([text])
    assert time.process_time() - started < 5


def test_too_many_alternatives_are_refused() -> None:
    """With what to do about it."""
    with pytest.raises(RefusedError) as error:
        compile_patterns(["/" + "{a,b}" * 20])
    assert error.value.hint == "narrow your pattern"


def test_hostile_wildcards_are_matched_in_no_time() -> None:
    """No pattern makes the regular expressions backtrack for ever."""
    started = time.process_time()
    assert not matches("*a" * 100 + "b", "a" * 255)
    assert not matches("*?" * 100 + "[b]*c", "a" * 255)
    assert time.process_time() - started < 2


@given(st.text(st.characters().filter(lambda c: c not in "/\0"), min_size=1))
def test_an_escaped_name_matches_itself_alone(name: str) -> None:
    """Names of any characters can be asked for."""
    expected = () if name in (".", "..") else (Literal(name),)
    assert components("/" + escape_name(name)) == expected


@given(st.text("ab./*?[]{},!^-\\\n", max_size=30))
def test_no_pattern_names_a_way_out(text: str) -> None:
    """Whatever is sent, no component is a dot, two dots, or holds a slash."""
    for pattern in compile_patterns([text]):
        for component in pattern.components:
            if isinstance(component, Literal):
                assert component.name not in ("", ".", "..")
                assert "/" not in component.name
