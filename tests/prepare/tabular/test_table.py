"""Reading a table with the lines of its rows."""

from __future__ import annotations

from recbole_mm.prepare.tabular.table import read_table


def test_lines_of_a_table_with_cells_over_several_lines(tmp_path):
    (tmp_path / "t.csv").write_text('a,b\n1,"x\ny"\n\n2,z\n')
    table = read_table(tmp_path / "t.csv", ["b"])
    assert table.frame["b"].tolist() == ["x\ny", "z"]
    assert table.lines.tolist() == [3, 5]
