"""What real files hold that their documentation does not say."""

import gzip
import io
import json
import zipfile
from dataclasses import replace

import polars as pl
import pytest

from pplr_audit.data.files import streams
from pplr_audit.data.files.json_lines import levels
from pplr_audit.data.load import read
from pplr_audit.errors import InputError
from tests.data.forms import FORMS, TOY

ITEMS = "item_id,title\na,A\nb,B\nc,C\n"


def titles(dataset):
    return dict(zip(dataset.catalogue.ids, dataset.catalogue.titles, strict=True))


def test_a_file_beside_another_data_set_is_the_file_that_was_named(write, plain):
    folder = write({**plain, "mine.csv": "user_id,item_id\n1,2\n", "steam_reviews.json": "{}\n"})
    found = read(str(folder / "mine.csv"), "auto")
    assert (found.reader, found.users) == ("table", ("1",))


def test_a_meta_file_without_reviews_makes_no_amazon_set(write):
    found = read(
        str(write({"interactions.csv": "user_id,item_id\n1,a\n", "items.csv": ITEMS, "meta_notes.json": "{}\n"})),
        "auto",
    )
    assert found.reader == "table"


@pytest.mark.parametrize("name", ["items.tsv", "interactions.tsv"])
def test_quotation_marks_of_titles_do_not_swallow_rows(write, name):
    files = {
        "items.tsv": 'item\ttitle\na\t"Hello\nb\tWorld"\nc\tC\n',
        "interactions.tsv": 'user\titem\tnote\n1\ta\t"x\n1\tb\ty"\n2\tc\tz\n',
    }
    found = read(str(write(files)), "auto")
    assert titles(found) == {"a": '"Hello', "b": 'World"', "c": "C"}
    assert found.items.lengths.tolist() == [2, 1]
    assert found.notes == {}


def test_a_broken_row_of_a_quoted_tab_separated_file_is_what_the_error_is_about(write):
    files = {"interactions.tsv": '"user"\t"item"\n"1"\t"a"\n"1"\t"a"\t"b"\n', "items.csv": ITEMS}
    with pytest.raises(InputError, match=r"interactions\.tsv, line 3: 3 columns"):
        read(str(write(files)), "auto")


def test_a_quotation_mark_inside_a_plain_field_is_a_letter(write):
    rows = "".join(f'{n},disk {n}"\n' if n == 700 else f"{n},disk {n}\n" for n in range(1000))
    files = {"interactions.csv": "user_id,item_id\n1,700\n", "items.csv": f"item_id,title\n{rows}"}
    found = read(str(write(files)), "auto")
    assert len(found.catalogue) == 1000
    assert titles(found)["700"] == 'disk 700"'


ESCAPED = {
    "start": (r'"\"Emma\" again"', '"Emma" again'),
    "middle": (r'"The \"Real\" One"', 'The "Real" One'),
    "end": (r'"Called \"Emma\""', 'Called "Emma"'),
    "one": (r'"A 12\" record"', 'A 12" record'),
    "all": (r'"\"Emma\""', '"Emma"'),
    "backslash": (r'"Back \"\\\" slash"', 'Back "\\" slash'),
    "other": (r'"\"a\nb\" C:\dir"', r'"a\nb" C:\dir'),
    "doubled": (r'"\"A\" and ""B"""', '"A" and "B"'),
    "separator": (r'"\"A, B; C\", D"', '"A, B; C", D'),
}


@pytest.mark.parametrize("case", ESCAPED)
@pytest.mark.parametrize(
    ("name", "separator", "piece"), [("csv", ",", 7), ("csv", ",", 1 << 24), ("csv", ";", 1 << 24), ("tsv", "\t", 7)]
)
def test_a_backslash_before_a_quotation_mark_in_a_quoted_field(write, monkeypatch, name, separator, case, piece):
    monkeypatch.setattr(streams, "PIECE", piece)
    written, expected = ESCAPED[case]
    rows = [('"item"', '"title"', '"maker"'), ('"a"', written, '"x"'), ('"b"', '"B"', written), ('"c"', '"C"', '"x"')]
    items = "".join(separator.join(row) + "\n" for row in rows)
    folder = write({"interactions.csv": "user,item\n1,a\n1,b\n1,c\n", f"items.{name}": items})
    found = read(str(folder), {"table": {"categories": "maker"}})
    assert titles(found) == {"a": expected, "b": "B", "c": "C"}
    assert found.catalogue.categories == ("x", expected, "x")


def test_ids_and_ratings_of_a_file_that_escapes_its_quotation_marks(write):
    files = {
        "interactions.csv": '"user";"item";"rating"\n"Ann \\"A\\"";"a";"5"\n"Bo";"b\\"";"4"\n',
        "items.csv": '"item";"title"\n"a";"A"\n"b\\"";"B"\n',
    }
    found = read(str(write(files)), "auto")
    assert (found.users, found.ratings.tolist()) == (('Ann "A"', "Bo"), [5, 4])
    assert titles(found) == {"a": "A", 'b"': "B"}


def test_a_backslash_that_ends_a_quoted_field_is_a_letter(write):
    items = 'item,title\na,"C:\\dir\\"\nb,"say ""\\"""\nc,"x"\n'
    found = read(str(write({"interactions.csv": "user,item\n1,a\n", "items.csv": items})), "auto")
    assert titles(found) == {"a": "C:\\dir\\", "b": 'say "\\"', "c": "x"}


def test_a_quotation_mark_alone_inside_a_quoted_field_is_refused_by_line(write):
    items = 'item,title\na,A\nb,"The "Real" One"\nc,C\n'
    with pytest.raises(InputError, match=r"items\.csv, line 3: .* \(accepted: fields in quotation marks, those inside"):
        read(str(write({"interactions.csv": "user,item\n1,a\n", "items.csv": items})), "auto")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("['G', 'H']", "G|H"),
        ('["G", null]', "G"),
        ("[Promo] x", "[Promo] x"),
        ('[["A", "B"], ["C"]]', "A|B"),
        ("[1", "[1"),
        (r"['A\D', 'B']", r"A\D|B"),
        ("[NaN, 'A']", "[NaN, 'A']"),
        ('["A", NaN]', "A"),
    ],
)
def test_categories_are_lists_in_any_writing_or_text(text, expected):
    assert levels(text) == expected


@pytest.mark.parametrize("separator", ["::", "¦", "|"])
def test_any_separator_that_can_part_fields_does(write, separator):
    rows = separator.join(("who", "what")) + "\n" + separator.join(("1", "a")) + "\n"
    reader = {"table": {"user": "who", "item": "what", "separator": separator, "items": "goods.csv", "title": "name"}}
    goods = f"what{separator}name\na{separator}A b\n"
    assert titles(read(str(write({"x.txt": rows, "goods.csv": goods}) / "x.txt"), reader)) == {"a": "A b"}


@pytest.mark.parametrize("wrong", ["\n", '"', "\r", "\x1f"])
def test_a_separator_that_cannot_part_fields_is_refused(write, wrong):
    with pytest.raises(InputError, match=r"data\.reader: table: separator is "):
        read(str(write({"interactions.csv": "user,item\n"})), {"table": {"separator": wrong}})


@pytest.mark.parametrize("wrong", ["punycode", "unicode_escape", "idna", "rot13", "hex", ""])
def test_an_encoding_in_which_no_file_is_written_is_refused(write, wrong):
    with pytest.raises(InputError, match=r"data\.reader: table: encoding is "):
        read(str(write({"interactions.csv": "user,item\n"})), {"table": {"encoding": wrong}})


def test_a_name_that_no_file_can_have_is_a_file_that_is_not_there(write):
    with pytest.raises(InputError, match="no such file"):
        read(str(write({"interactions.csv": "user,item\n1,2\n"})), {"table": {"items": "a" * 300}})


def packed(files):
    found = io.BytesIO()
    with zipfile.ZipFile(found, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return found.getvalue()


@pytest.mark.parametrize("extra", [{}, {"__MACOSX/._ratings.csv": b"x"}, {".DS_Store": b"x"}])
def test_a_zip_names_its_files_by_itself_and_what_a_mac_puts_beside_them_is_passed_over(write, extra):
    inside = {f"ml/{name}": content for name, content in FORMS["ml_32m"](TOY).items()}
    path = write({"ml.zip": packed({**inside, **extra})}) / "ml.zip"
    found = read(str(path), "auto")
    assert [file.path for file in found.sources] == [path / "ml" / "ratings.csv", path / "ml" / "movies.csv"]


def test_a_zip_of_one_table_is_that_table(write):
    path = write({"x.zip": packed({"purchases.csv": "user_id,item_id,title\n1,a,A\n"})}) / "x.zip"
    assert read(str(path), "auto").sources[0].path == path / "purchases.csv"


def test_an_empty_zip_is_refused(write):
    with pytest.raises(InputError, match=r"no reader knows .*empty folder"):
        read(str(write({"x.zip": packed({})}) / "x.zip"), "auto")


def test_ids_of_any_number_of_digits_are_in_order(write):
    long = "9" * 5000
    found = read(
        str(write({"interactions.csv": f"user_id,item_id\n{long},a\n10,a\n9,a\n", "items.csv": ITEMS})), "auto"
    )
    assert found.users == ("9", "10", long)


@pytest.mark.parametrize("content", ["user_id, item_id\n1,a\n", "user_id,item_id\n1,a\n\n\n", "user_id,item_id\r1,a\r"])
def test_blanks_in_the_header_blank_ends_and_old_line_ends_do_no_harm(write, content):
    found = read(str(write({"interactions.csv": content, "items.csv": ITEMS})), "auto")
    assert (found.users, found.items.values.tolist()) == (("1",), [0])


def test_reviews_without_user_or_time_are_left_out_and_counted(write):
    files = FORMS["amazon_2018"](TOY)
    more = [
        {"reviewerID": None, "asin": "11", "overall": 5.0, "unixReviewTime": 1_500_000_000},
        {"reviewerID": "7", "asin": "11", "overall": 5.0, "unixReviewTime": None},
        {"reviewerID": "7", "asin": "33", "overall": None, "unixReviewTime": 1_500_000_999},
    ]
    lines = "".join(json.dumps(each) + "\n" for each in more).encode()
    files["Toys_5.json.gz"] = gzip.compress(lines + gzip.decompress(files["Toys_5.json.gz"]))
    found = read(str(write(files)), "auto")
    assert found.notes == {"reviews_without_user_item_or_time": 2}
    assert found.items.lengths.tolist() == [2, 5, 1]


def test_titles_from_pages_are_what_the_page_shows(write):
    files = FORMS["amazon_2018"](TOY)
    wares = [
        {"asin": "11", "title": "A&#13;&#10;B &amp; C\x92s"},
        {"asin": "22", "title": "&nbsp;"},
        {"asin": "33", "title": "cafe&#769;"},
    ]
    files["meta_Toys.json.gz"] = "".join(json.dumps(each) + "\n" for each in wares).encode()
    found = read(str(write(files)), "auto")
    assert titles(found) == {"11": "A B & C s", "33": "café"}
    assert found.notes["items_without_title"] == 1


@pytest.mark.parametrize(
    ("source", "title"),
    [
        ('<span class="a-size-medium">Alpha</span> <b>Be</b>ta', "Alpha Beta"),
        ("Gamma<br/>Two<BR>Three<p>Four</p>", "Gamma Two Three Four"),
        ("A &lt;b&gt; B &amp;amp; C &#39;n&#39; &quot;D&quot;", "A <b> B &amp; C 'n' \"D\""),
        ("1 < 2 > 0, I <3 <you> & <Insert title here>", "1 < 2 > 0, I <3 <you> & <Insert title here>"),
        ('<a title="1 > 0" href=x>Link</a><!-- <b> --><script>var a = "<b>";</script>', "Link"),
        ("Toy<style>b {color: red}", "Toy"),
        ("<table><tr><td>One</td><td>Two</td></tr></table>", "One Two"),
    ],
)
@pytest.mark.parametrize("form", ["amazon_2014", "amazon_2018", "amazon_2023", "steam"])
def test_titles_from_pages_lose_their_markup_and_entities_are_decoded_once(write, form, source, title):
    files = FORMS[form](replace(TOY, titles={**TOY.titles, "11": "PLACE"}))
    name = next(name for name in files if name.startswith(("meta_", "steam_games")))
    wares = gzip.decompress(files[name]) if name.endswith(".gz") else files[name]
    written = json.dumps(source)[1:-1]
    if form in ("amazon_2014", "steam"):  # Python literals in single quotes
        written = written.replace("'", "'")
    wares = wares.replace(b"PLACE", written.encode())
    assert titles(read(str(write({**files, name: wares})), "auto"))["11"] == title


@pytest.mark.parametrize("form", ["ml_32m", "microlens_csv", "yelp", "goodreads", "recbole", "sequences", "table_csv"])
def test_titles_of_other_sources_are_as_they_are(write, form):
    title = "<b>Salt</b> &amp; Pepper<br/>var x = (new Date()).getTime()"
    found = read(str(write(FORMS[form](replace(TOY, titles={**TOY.titles, "11": title})))), "auto")
    assert titles(found)["11"] == title
    assert found.notes == {}


def test_what_a_script_left_is_no_title_and_counted(write):
    files = FORMS["amazon_2018"](TOY)
    script = "var aPageStart = (new Date()).getTime();\nvar ue_t0=ue_t0||+new Date();"
    wares = [{"asin": "11", "title": script}, {"asin": "22", "title": "var, a play"}, {"asin": "33", "title": script}]
    wares += [{"asin": "33", "title": "Zelda"}, {"asin": "44", "title": ".box-inner{background-color:#fff}#more{x:y}"}]
    files["meta_Toys.json.gz"] = "".join(json.dumps(each) + "\n" for each in wares).encode()
    found = read(str(write(files)), "auto")
    assert titles(found) == {"22": "var, a play", "33": "Zelda"}
    assert found.notes == {
        "items_without_title": 2,
        "titles_of_script": 2,
        "item_rows_repeated": 1,
        "interactions_without_title": 3,
    }


def test_categories_from_pages_lose_their_markup_and_empty_ones_go(write):
    files = FORMS["amazon_2018"](TOY)
    wares = [
        {"asin": each, "title": "A", "category": ["Toys &amp; Games", "</span></span>", "<b>A</b>"]} for each in "123"
    ]
    wares += [{"asin": each, "title": each, "category": []} for each in TOY.titles]
    files["meta_Toys.json.gz"] = "".join(json.dumps(each) + "\n" for each in wares).encode()
    assert read(str(write(files)), "auto").catalogue.categories == (*["Toys & Games|A"] * 3, "", "", "")


BACKSLASHES = [r"AC\DC", 'say "x"', r"new\table", "a\nb", "café", "\\"]


@pytest.mark.parametrize("nested", [BACKSLASHES, [BACKSLASHES, ["other"]]])
@pytest.mark.parametrize("blank", ["", "\n"])
def test_backslashes_in_a_list_of_categories_are_read_as_json_means_them(write, nested, blank):
    rows = [
        {"user_id": "1", "item_id": "a", "title": r"[x] c:\new", "categories": nested},
        {"user_id": "1", "item_id": "b", "title": "B", "categories": ["plain"]},
        {"user_id": "1", "item_id": "c", "title": "C", "categories": None},
    ]
    text = "".join(blank + json.dumps(row) + "\n" for row in rows)
    found = read(str(write({"interactions.jsonl": text})), "auto")
    assert found.catalogue.categories == ("|".join(BACKSLASHES), "plain", "")
    assert found.catalogue.titles == (r"[x] c:\new", "B", "C")


@pytest.mark.parametrize("form", ["amazon_2018", "amazon_2023"])
def test_backslashes_in_the_categories_of_a_publisher_are_letters(write, form):
    files = FORMS[form](TOY)
    name = next(name for name in files if name.startswith("meta_"))
    wares = gzip.decompress(files[name]) if name.endswith(".gz") else files[name]
    found = read(str(write({**files, name: wares.replace(b'"Drama"', rb'"T\\n \"V\""')})), "auto")
    assert set(found.catalogue.categories) == {'Comedy|T\\n "V"'}


@pytest.mark.parametrize(
    "values", [[True], pl.Series([1], dtype=pl.Duration("us")).to_list(), pl.Series([1], dtype=pl.Time).to_list()]
)
def test_parquet_columns_that_are_no_times_are_refused(write, values):
    file = io.BytesIO()
    pl.DataFrame({"user": [1], "item": ["a"], "timestamp": values}).write_parquet(file)
    with pytest.raises(InputError, match=r"the column 'timestamp' is of type (Boolean|Duration|Time)"):
        read(str(write({"interactions.parquet": file.getvalue(), "items.csv": ITEMS})), "auto")


@pytest.mark.parametrize("name", ["Toys.jsonl", "Toys.parquet"])
def test_the_headlines_of_reviews_are_no_titles_of_items(write, name):
    reviews = FORMS["amazon_2023"](TOY)["Toys.jsonl"].replace(b'"title"', b'"verified_purchase": true, "title"')
    if name.endswith("parquet"):
        file = io.BytesIO()
        pl.read_ndjson(reviews).write_parquet(file)
        reviews = file.getvalue()
    path = write({name: reviews}) / name
    for reader in ("auto", "table"):
        with pytest.raises(
            InputError, match=rf"{name}: .*headline of a review \(accepted: the meta file .*meta_{name}"
        ):
            read(str(path), reader)
    found = read(str(path), {"table": {"title": "title"}})
    assert set(found.catalogue.titles) == {"Nice"}


def test_an_item_table_beside_headlines_gives_the_titles(write):
    files = FORMS["amazon_2023"](TOY)
    folder = write({"Toys.jsonl": files["Toys.jsonl"], "elsewhere.jsonl": files["meta_Toys.jsonl"]})
    found = read(str(folder / "Toys.jsonl"), {"table": {"items": "elsewhere.jsonl"}})
    assert set(titles(found)) == set(TOY.titles)
    assert "Nice" not in found.catalogue.titles


def test_a_title_that_differs_from_row_to_row_of_an_item_is_none(write):
    rows = "1,a,Great\n1,b,Bad\n2,a,Five stars\n2,b,Bad\n3,a,Meh\n3,b,\n3,c,Good\n2,c,So so\n"
    path = write({"x.csv": f"user_id,item_id,title\n{rows}"}) / "x.csv"
    with pytest.raises(
        InputError, match=r"x\.csv: 'title' is not the title of an item: 2 of the 3 items with several rows have diff"
    ):
        read(str(path), "auto")
    assert titles(read(str(path), {"table": {"title": "title"}})) == {"a": "Great", "b": "Bad", "c": "Good"}
    path = write({"x.csv": f"user_id,item_id,title\n{rows.replace('So so', 'Good')}"}) / "x.csv"
    assert titles(read(str(path), "auto"))["c"] == "Good"


OF_NO_USER = {
    "table": {
        "interactions.csv": "user_id,item_id\n11.0,a\n12.0,b\n",
        "items.csv": ITEMS,
        "users.csv": "user_id,gender\n11,F\n12,M\n",
    },
    "movielens": {
        "ratings.dat": "11::1::5::10\n",
        "movies.dat": "1::Emma::Drama\n",
        "users.dat": "u11::F::1::10::48067\n",
    },
    "recbole": {
        "toy.inter": "user_id:token\titem_id:token\n11\ta\n",
        "toy.item": "item_id:token\ttitle:token_seq\na\tA\n",
        "toy.user": "user_id:token\tgender:token\nu11\tF\n",
    },
    "sequences": {
        "items.tsv": "item_id\ttitle\na\tA\n",
        "sequences.txt": "11 a\n",
        "users.tsv": "user_id\tgender\nu11\tF\n",
    },
}


@pytest.mark.parametrize("reader", OF_NO_USER)
def test_a_table_of_users_that_has_none_of_them_is_refused(write, reader):
    with pytest.raises(InputError, match=r"users?(\.\w+)?, line \d: user_id is 'u?11', and none of the \d users"):
        read(str(write(OF_NO_USER[reader])), "auto")


def test_users_of_whom_the_table_says_nothing_are_counted_as_unknown(write):
    files = {**OF_NO_USER["table"], "users.csv": "user_id,gender\n11.0,F\n13.0,M\n"}
    assert read(str(write(files)), "auto").attributes == {"gender": ("F", "")}


@pytest.mark.parametrize("form", ["ml_32m", "microlens_csv", "amazon_2018", "steam", "yelp", "sequences", "table_csv"])
@pytest.mark.parametrize("title", ["nan", "None", "N/A", "NULL"])
def test_words_that_may_be_titles_are_titles_and_counted(write, form, title):
    found = read(str(write(FORMS[form](replace(TOY, titles={**TOY.titles, "11": title, "22": "Nan"})))), "auto")
    assert (titles(found)["11"], titles(found)["22"]) == (title, "Nan")
    assert found.notes == {"titles_perhaps_missing": 1}
