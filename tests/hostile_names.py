"""Names that a program may take for something else than a name."""

from hypothesis import strategies as st

NAMES = [
    *(
        "[red]x[/y]",
        "[/]",
        ":cat:",
        "\x1b[31mred",
        "a\nb",
        "a\rb",
        "a\tb",
        "\u202etxt.exe",
        "a\u2028b",
        "\x00",
    ),
    *("<script>alert(1)</script>", "<b>&amp;", "\"q\" 'q'", "%{x}", "{{ x }}", "a|b", "`x`", "a,b;c", "~x"),
    *("US$ 5 to US$ 10^", "$x_1$", "\\frac{1}", "\\n", "100 %", "_x_", "*x*", "--x--", "''", "#1", "a  b"),
    *(
        "=1+1",
        "+1",
        "-1",
        "@SUM(1)",
        "'=1",
        "''=1",
        " =1",
        "\t=1",
        "\r=1",
        "\uff1d1",
        "'tis",
        "NA",
        "None",
        "1e5",
    ),
    *(
        "größe",
        "e\u0301",
        "猫",
        "黑 猫",
        "قطة",
        "👩\u200d🔬",
        "❤\ufe0f",
        "\U0010fffe",
        "a\udcff",
        "x" * 300,
        "a\u200d" * 40,
    ),
    *("猫" * 40, "", " ", "\u200b", "\ufeff", "\u3000"),
]
names = st.one_of(st.sampled_from(NAMES), st.text(st.characters(codec=None, exclude_characters="\x00")))
