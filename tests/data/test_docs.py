"""The reader in docs/data.md does what the page says."""

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "data.md"


def test_the_reader_shown_in_the_docs_reads(write):
    code = re.search(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)[1]
    scope = {}
    exec(compile(code, "docs/data.md", "exec"), scope)
    folder = write(
        {"loans.log": "ann 7 20\nbob 8 5\nann 8 10\n", "books.csv": 'book,title\n7,"Emma, a novel"\n8,Ulysses\n'}
    )
    reader = scope["Loans"]()
    assert reader.detect(folder)
    found = reader.read(folder)
    assert found.users == ("ann", "bob")
    assert [found.catalogue.titles[item] for item in found.items[0]] == ["Ulysses", "Emma, a novel"]
    assert {source.path.name: dict(source.columns) for source in found.sources} == {
        "loans.log": {"who": "user", "book": "item", "when": "time"},
        "books.csv": {"book": "item", "title": "title"},
    }
