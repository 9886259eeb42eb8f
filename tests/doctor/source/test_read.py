"""Files in any encoding and notebooks: read as one program, and written back byte for byte."""

from __future__ import annotations

import json
import linecache
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trueloop.doctor.findings import Place
from trueloop.doctor.source.fixes import Edit
from trueloop.doctor.source.notebook import as_python, cells, rewritten
from trueloop.doctor.source.parse import trouble
from trueloop.doctor.source.read import Source, Unread, of_bytes, of_file


def source_of(content: bytes, path: str = "a.py") -> Source:
    source = of_bytes(content, path)
    assert isinstance(source, Source)
    return source


def notebook(*sources: str | list[str], indent: int | None = 1, language: str = "python", **more: Any) -> str:
    made: list[dict[str, Any]] = [{"cell_type": "markdown", "metadata": {}, "source": ["# x = (\n", "é"]}]
    made += [
        {"cell_type": "code", "execution_count": 3, "metadata": {"x": [1.50]}, "outputs": [], "source": source}
        for source in sources
    ]
    whole = {"cells": made, "metadata": {"kernelspec": {"language": language}}, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(whole | more, indent=indent, ensure_ascii=False) + "\n"


# Files


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"x = 1\r\ny = 2\r\n", "x = 1\r\ny = 2\r\n"),
        (b"\xef\xbb\xbfx = 1\n", "x = 1\n"),
        (b"\xef\xbb\xbf# coding: utf-8\nx = 1\n", "# coding: utf-8\nx = 1\n"),
        ("# -*- coding: latin-1 -*-\nx = 'é'\n".encode("latin-1"), "# -*- coding: latin-1 -*-\nx = 'é'\n"),
        (
            "#!/usr/bin/python\n# coding=shift_jis\nx = '値'".encode("shift_jis"),
            "#!/usr/bin/python\n# coding=shift_jis\nx = '値'",
        ),
        (b"", ""),
    ],
)
def test_any_encoding_is_read_and_written_back(content: bytes, text: str) -> None:
    source = source_of(content)
    assert source.text == text
    assert source.as_bytes() == content
    edited = source.edited([Edit((1, 0), (1, 0), "")])
    assert edited.as_bytes() == content


def test_an_edit_keeps_line_ends_mark_and_encoding() -> None:
    content = "# coding: latin-1\r\nx = 'é'\r\n".encode("latin-1")
    assert source_of(content).edited([Edit((2, 0), (2, 0), "y = 1\n")]).as_bytes() == content.replace(
        b"x =", b"y = 1\r\nx ="
    )
    marked = source_of(b"\xef\xbb\xbfx = 1\n").edited([Edit((1, 4), (1, 5), "2")])
    assert marked.as_bytes() == b"\xef\xbb\xbfx = 2\n"
    with pytest.raises(UnicodeEncodeError):
        source_of(content).edited([Edit((2, 0), (2, 0), "'値'\n")]).as_bytes()


@pytest.mark.parametrize(
    ("content", "path", "line", "message"),
    [
        (b"x = 1\ny = '\xff'\n", "a.py", 2, "it is not utf-8"),
        (b"# coding: klingon\n", "a.py", 0, "unknown encoding"),
        (b"# coding: hex\nx\n", "a.py", 0, ""),
        (b"x = 1\n\0", "a.py", 2, "it holds a null byte"),
        (b"{", "a.ipynb", 1, "it is no notebook, which is JSON"),
        (b"[]", "a.ipynb", 0, "expected a notebook of format 4"),
        (b'{"worksheets": []}', "a.ipynb", 0, "expected a notebook of format 4"),
        (b"\xff", "a.ipynb", 1, "it is not utf-8"),
        (b"[" * 100_000, "a.ipynb", 0, "deep"),
    ],
)
def test_what_cannot_be_read_is_told(content: bytes, path: str, line: int, message: str) -> None:
    unread = of_bytes(content, path)
    assert isinstance(unread, Unread)
    assert unread.line == line
    assert message in unread.message or "recursion" in unread.message


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    assert isinstance(of_file(tmp_path / "none.py"), Unread)
    assert isinstance(of_file(tmp_path), Unread)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.py")
    unread = of_file(tmp_path / "a.py")
    assert isinstance(unread, Unread)
    assert "what comes from a pipe is read by `trueloop check -`" in unread.message


# Notebooks


def test_cells_are_one_program_with_places() -> None:
    raw = notebook(["import torch\n", "x = 1"], "", ["%%bash\n", "rm -r x"], "%%time\ny = x\n!ls", ["z = 2\n"])
    source = source_of(raw.encode(), "n.ipynb")
    assert source.text == "import torch\nx = 1\n\n# %%bash\n# rm -r x\n# %%time\ny = x\n# !ls\nz = 2\n"
    assert source.place(2) == Place("n.ipynb:cell 1", 2)
    assert source.place(7) == Place("n.ipynb:cell 4", 2)
    assert source.place(9) == Place("n.ipynb:cell 5", 1)
    assert raw.splitlines()[source.place_in_file(2).line - 1].strip() == '"x = 1"'
    assert '"%%time\\ny = x' in raw.splitlines()[source.place_in_file(7).line - 1]
    source.show()
    assert linecache.getline("n.ipynb:cell 1", 2) == "x = 1\n"


def test_a_notebook_of_another_language_or_without_code_is_left_alone() -> None:
    assert of_bytes(notebook("x <- 1", language="R").encode(), "n.ipynb") is None
    assert of_bytes(notebook().encode(), "n.ipynb") is None
    assert of_bytes(b'{"cells": [], "nbformat": 4}', "n.ipynb") is None


@pytest.mark.parametrize(
    ("cell", "program"),
    [
        ("x = (1\n  % 2)\n", "x = (1\n  % 2)\n"),
        ("s = '''\n%x\n!y\n'''\n", "s = '''\n%x\n!y\n'''\n"),
        ("s = 'it\\'s' # (\n%x", "s = 'it\\'s' # (\n# %x\n"),
        ("x = 1 + \\\n  y\n!a", "x = 1 + \\\n  y\n# !a\n"),
        ("torch.nn?\nx", "# torch.nn?\nx\n"),
        ("t = %timeit -o f()\nx", "t = None  # %timeit -o f()\nx\n"),
        ("self.files, *x[0] = !ls", "self.files, *x[0] = None  # !ls\n"),
        ("x = y != z", "x = y != z\n"),
        ("x: int = 3 % 2", "x: int = 3 % 2\n"),
        ("# why?\nx = 'why?'", "# why?\nx = 'why?'\n"),
        ("%%html\n<b>'", "# %%html\n# <b>'\n"),
        ("\n%%time\nx", "\n# %%time\nx\n"),
        ("x\r\n%y\r\n", "x\r\n# %y\r\n"),
        ("", "\n"),
    ],
)
def test_what_is_not_python_becomes_a_comment(cell: str, program: str) -> None:
    assert as_python(cell) == program
    assert trouble(program) is None


@given(st.text(alphabet="ab%!?\n ='\"(#\\", max_size=40))
def test_a_cell_has_as_many_lines_as_its_program(cell: str) -> None:
    program = as_python(cell)
    assert program.endswith("\n")
    assert program.count("\n") == max(1, cell.count("\n") + (not cell.endswith("\n")))


@pytest.mark.parametrize("indent", [None, 1, 4])
def test_the_rest_of_the_json_keeps_its_bytes(indent: int | None) -> None:
    raw = notebook(["a = 1\n", "%magic\n", "b = 'é'"], "c = 1\nd = 1", indent=indent)
    source = source_of(raw.encode(), "n.ipynb")
    edited = source.edited(
        [
            Edit((1, 4), (1, 5), "2"),
            Edit((3, 0), (3, 0), "new\n"),
            Edit((5, 0), (5, 5), "e = 1"),
        ]
    )
    expected = raw.replace('"a = 1\\n"', '"a = 2\\n"').replace("d = 1", "e = 1")
    assert json.loads(edited.raw)["cells"][1]["source"] == ["a = 2\n", "%magic\n", "new\n", "b = 'é'"]
    pad = ", " if indent is None else ",\n" + " " * (4 * indent)
    assert edited.raw == expected.replace('"%magic\\n"', f'"%magic\\n"{pad}"new\\n"')
    assert edited.text == "a = 2\n# %magic\nnew\nb = 'é'\nc = 1\ne = 1\n"


def test_escapes_and_a_byte_order_mark_stay() -> None:
    raw = '\ufeff{"cells": [{"cell_type": "code", "source": ["a = \'\\u00e9\'\\n", "b"]}], "nbformat": 4}'
    source = source_of(raw.encode(), "n.ipynb")
    edited = source.edited([Edit((2, 0), (2, 1), "'é'")])
    assert edited.as_bytes() == raw.replace('"b"', "\"'\\u00e9'\"").encode()


def test_an_edit_stays_within_its_cell() -> None:
    source = source_of(notebook("a = 1", "%%time\nb = 1", "c = 1").encode(), "n.ipynb")
    with pytest.raises(ValueError, match="within cell 1"):
        source.edited([Edit((1, 0), (3, 1), "")])
    with pytest.raises(ValueError, match="magic"):
        source.edited([Edit((2, 0), (2, 3), "")])
    before = source.edited([Edit((2, 0), (2, 0), "new\n")])  # the magic must stay the first line of its cell
    assert [cell.text for cell in before.cells] == ["a = 1\nnew", "%%time\nb = 1", "c = 1"]
    blocks = source_of(notebook("for x in y:\n    f(x)", "g()", "%%bash\nls", "h()").encode(), "n.ipynb")
    after = blocks.edited([Edit((3, 0), (3, 0), "    k()\n")])  # within the block, which ends with its cell
    assert [cell.text for cell in after.cells][:2] == ["for x in y:\n    f(x)\n    k()", "g()"]
    first = blocks.edited([Edit((3, 0), (3, 0), "k()\n")])
    assert [cell.text for cell in first.cells][:2] == ["for x in y:\n    f(x)", "k()\ng()"]
    with pytest.raises(ValueError, match="magic"):
        blocks.edited([Edit((6, 0), (6, 0), "    k()\n")])
    shell = source_of(notebook("for x in y:\n    f(x)\n    !ls", "g()").encode(), "n.ipynb")
    inside = shell.edited([Edit((3, 0), (3, 0), "    k()\n"), Edit((4, 0), (4, 0), "    l()\n")])
    assert inside.cells[0].text == "for x in y:\n    f(x)\n    k()\n    !ls\n    l()"
    removed = source.edited([Edit((3, 0), (4, 0), "")])
    assert [cell.text for cell in removed.cells] == ["a = 1", "%%time", "c = 1"]
    at_the_end = source.edited([Edit((5, 0), (5, 0), "d\n")])
    assert at_the_end.cells[-1].text == "c = 1\nd"


@given(
    st.lists(st.text(alphabet="ab\n'\"é\\", max_size=12), min_size=1, max_size=3),
    st.text(alphabet='ab\n"é', max_size=12),
)
def test_a_cell_written_back_is_read_as_it_was_written(texts: list[str], new: str) -> None:
    raw = notebook(*(text.splitlines(keepends=True) for text in texts))
    found = cells(raw)
    assert found is not None
    again = rewritten(raw, found[-1], new)
    assert [cell.text for cell in cells(again) or ()] == [*texts[:-1], new]
    assert rewritten(raw, found[0], found[0].text) == raw
