from __future__ import annotations

import pytest

from vds.counts import Row, StageCounts, UploadCounts, Window, format_bytes, format_duration

KIB, MIB, GIB = 2**10, 2**20, 2**30


def found(files: int, size_bytes: int, *, is_scanned: bool = True, is_dry: bool = False) -> UploadCounts:
    counts = UploadCounts(0.0, is_dry=is_dry)
    counts.files_found, counts.bytes_found, counts.is_scanned = files, size_bytes, is_scanned
    return counts


class TestWindow:
    def test_a_rate_is_that_of_the_last_ten_seconds(self) -> None:
        window, count = Window(0.0), 0
        for second in range(1, 21):
            count += 100 if second <= 10 else 7
            window.note(float(second), count)
        assert window.rate(20.0, count) == 7.0

    def test_before_ten_seconds_it_is_that_since_the_beginning(self) -> None:
        window = Window(5.0)
        window.note(6.0, 10)
        assert window.rate(9.0, 40) == 10.0

    def test_a_count_that_came_to_a_halt_has_no_rate(self) -> None:
        window = Window(0.0)
        for now_s in (1.0, 2.0, 2.1):
            window.note(now_s, int(now_s * 10))
        assert window.rate(5.0, 21) == 21 / 5
        assert [window.rate(now_s, 21) for now_s in (16.0, 27.0)] == [0.0, 0.0]

    def test_nothing_can_be_said_at_the_beginning(self) -> None:
        assert Window(3.0).rate(3.0, 50) == 0.0

    def test_it_holds_a_few_samples_only(self) -> None:
        window = Window(0.0)
        for tick in range(10_000):
            window.note(tick / 100, tick)
        assert len(window._samples) <= 42


class TestStageCounts:
    def test_totals_that_are_known(self) -> None:
        stage = StageCounts("downloading", 0.0, 4, 4 * KIB)
        stage.add(2.0, 3, 3 * KIB)
        assert stage.row(3.0) == Row("downloading", 0.75, "3 of 4 files, 3.0 KiB of 4.0 KiB, 1.0 KiB/s")
        assert stage.facts() == ["3 files", "3.0 KiB"]

    def test_without_bytes_the_files_say_how_much_is_done(self) -> None:
        stage = StageCounts("comparing", 0.0, 4, None)
        stage.add(1.0, 1, 0)
        assert stage.row(1.0) == Row("comparing", 0.25, "1 of 4 files")
        assert stage.facts() == ["1 file"]

    def test_what_is_not_known_is_left_out(self) -> None:
        stage = StageCounts("committing", 0.0, None, None)
        assert (stage.row(1.0), stage.facts()) == (Row("committing"), [])
        stage.add(1.0, 1234, 0)
        assert stage.row(1.0) == Row("committing", None, "1,234 files")

    def test_more_than_was_foreseen_is_all_of_it(self) -> None:
        stage = StageCounts("x", 0.0, 1, None)
        stage.add(1.0, 2, 0)
        assert stage.row(1.0).share == 1.0


class TestUploadCounts:
    def test_while_the_scan_goes_on_totals_may_grow_and_no_time_is_left(self) -> None:
        counts = found(40, 40 * MIB, is_scanned=False)
        counts.hashed(2.0, 10, 10 * MIB, 4 * MIB)
        counts.sent(2.0, 2 * MIB, 0)
        assert counts.rows(2.0) == [
            Row("hashing", None, "10 of 40+ files, 10.0 MiB of 40.0 MiB+, 5.0 MiB/s"),
            Row("uploading", None, "2.0 MiB of 6.0 MiB+, 1.0 MiB/s, saved 4.0 MiB"),
        ]

    def test_after_the_scan_the_slower_stage_says_how_long_it_takes(self) -> None:
        counts = found(40, 40 * MIB)
        counts.hashed(2.0, 20, 20 * MIB, 0)
        counts.sent(2.0, 2 * MIB, 0)
        # 38 MiB at 1 MiB/s
        assert counts.rows(2.0) == [
            Row("hashing", 0.5, "20 of 40 files, 20.0 MiB of 40.0 MiB, 10.0 MiB/s"),
            Row("uploading", 0.05, "2.0 MiB of 20.0 MiB+, 1.0 MiB/s, 0:38 left"),
        ]
        counts.sent(2.0, 18 * MIB, 0)
        assert counts.left_s(2.0) == 2.0

    def test_of_what_is_not_hashed_a_share_like_before_is_taken_to_be_new(self) -> None:
        counts = found(100, 100 * MIB)
        counts.hashed(2.0, 50, 50 * MIB, 45 * MIB)
        counts.sent(2.0, 2 * MIB, 0)
        # 3 MiB of the first half and 5 MiB of the second, at 1 MiB/s
        assert counts.left_s(2.0) == 8.0
        assert counts.rows(2.0)[1].share == 0.2

    def test_hashing_that_is_over_has_no_rate(self) -> None:
        counts = found(2, 4 * MIB)
        counts.hashed(1.0, 2, 4 * MIB, 1 * MIB)
        assert counts.rows(2.0) == [
            Row("hashing", 1.0, "2 of 2 files, 4.0 MiB of 4.0 MiB"),
            Row("uploading", 0.0, "0 B of 3.0 MiB, saved 1.0 MiB"),
        ]
        counts.sent(3.0, 3 * MIB, 0)
        assert counts.rows(3.0)[1] == Row("uploading", 1.0, "3.0 MiB of 3.0 MiB, saved 1.0 MiB")

    def test_nothing_to_send(self) -> None:
        counts = found(2, 4 * MIB)
        counts.hashed(1.0, 2, 4 * MIB, 4 * MIB)
        assert counts.rows(2.0)[1] == Row("uploading", 1.0, "0 B of 0 B, saved 4.0 MiB")
        assert counts.facts(is_done=True) == ["2 files", "0 B sent", "4.0 MiB saved"]

    def test_blocks_that_had_arrived_before_are_saved_not_sent(self) -> None:
        counts = found(1, 10 * MIB)
        counts.hashed(1.0, 1, 10 * MIB, 0)
        counts.sent(1.0, 0, 6 * MIB)
        assert counts.rows(1.0)[1].text == "0 B of 4.0 MiB, saved 6.0 MiB"

    def test_a_large_file_may_be_sent_before_it_is_hashed(self) -> None:
        counts = found(1, 10 * MIB)
        counts.sent(2.0, 4 * MIB, 0)
        assert counts.rows(2.0)[1] == Row("uploading", 0.4, "4.0 MiB of 4.0 MiB+, 2.0 MiB/s")
        counts.hashed(2.0, 0, 5 * MIB, 0)
        counts.hashed(4.0, 1, 5 * MIB, 0)
        assert counts.left_s(4.0) == 6.0

    def test_an_upload_without_bytes(self) -> None:
        counts = found(3, 0)
        counts.hashed(1.0, 3, 0, 0)
        assert counts.rows(2.0) == [Row("hashing", 1.0, "3 of 3 files, 0 B of 0 B"), Row("uploading", 1.0, "0 B of 0 B")]
        assert counts.left_s(2.0) is None

    def test_a_dry_run_says_what_would_be_sent(self) -> None:
        counts = found(4, 4 * MIB, is_dry=True)
        counts.hashed(1.0, 2, 2 * MIB, 1 * MIB)
        assert counts.rows(2.0) == [
            Row("hashing", 0.5, "2 of 4 files, 2.0 MiB of 4.0 MiB, 1.0 MiB/s"),
            Row("to send", 0.5, "1.0 MiB+, saved 1.0 MiB, 0:02 left"),
        ]
        counts.hashed(3.0, 2, 2 * MIB, 0)
        assert counts.facts(is_done=True) == ["4 files", "3.0 MiB would be sent", "1.0 MiB saved"]

    def test_the_end_of_what_was_stopped(self) -> None:
        counts = found(4, 4 * MIB)
        counts.hashed(1.0, 1, MIB, 0)
        assert counts.facts(is_done=False) == ["1 file hashed", "0 B sent"]

    def test_large_numbers_leave_room_on_80_columns(self) -> None:
        size_bytes = int(999.9 * GIB)
        counts = found(2_000_000, 2 * size_bytes)
        counts.bytes_found = size_bytes
        counts.hashed(0.0, 1_999_999, size_bytes // 2, size_bytes // 4)
        counts.hashed(1024.0, 0, size_bytes // 4, 0)
        counts.sent(1024.0, size_bytes // 8, 0)
        widths = [len(f"{row.stage:10} ") + len(row.text) for row in counts.rows(1024.0)]
        assert max(widths) <= 80, counts.rows(1024.0)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (0.4, "0:00"), (7, "0:07"), (59.6, "1:00"), (151, "2:31"), (3723, "1:02:03")]
)
def test_spans(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1536, "1.5 KiB"), (5 * GIB, "5.0 GiB"), (5000 * 2**40, "5000.0 TiB")],
)
def test_sizes(size_bytes: int, text: str) -> None:
    assert format_bytes(size_bytes) == text
