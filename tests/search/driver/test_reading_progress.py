"""What a user is told while images are read."""

from stepfront.search.driver.reading_progress import reading_progress


def test_a_line_each_ten_seconds_with_the_time_that_is_left_and_none_of_what_is_quick() -> None:
    now, said = 0.0, list[str]()
    tell = reading_progress(said.append, lambda: now)
    for done in range(1, 41):  # an image a second
        now = float(done)
        tell(done, 40)
    assert said == [
        "reading the images: 10 of 40, 30 s left",
        "reading the images: 20 of 40, 20 s left",
        "reading the images: 30 of 40, 10 s left",
        "reading the images: 40 of 40, 0 s left",
    ]
    said.clear()
    for done in range(1, 13):  # the held-out images have a pace of their own
        now = 40.0 + 2 * done
        tell(done, 20)
    assert said == ["reading the images: 5 of 20, 30 s left", "reading the images: 10 of 20, 20 s left"]


def test_what_comes_before_the_first_image_says_nothing_of_the_pace() -> None:
    now, said = 0.0, list[str]()
    tell = reading_progress(said.append, lambda: now)
    now = 12.0  # opening the archive
    tell(1, 2400)
    now = 22.0
    tell(101, 2400)
    assert said == ["reading the images: 1 of 2,400", "reading the images: 101 of 2,400, 3 min 50 s left"]
