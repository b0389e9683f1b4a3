"""The table of devices: every number sane, every price dated and sourced, names read as people write them."""

from datetime import date

import pytest

from gptwright.core.errors import UserError
from gptwright.plan.devices import dated, devices, rented


def test_devices_when_the_table_is_read_then_every_row_is_whole_and_every_price_dated():
    assert len(devices()) >= 12
    for device in devices().values():
        assert 1e12 < device.flops < 1e16
        assert 1e10 < device.memory < 1e12
        assert 1e11 < device.bandwidth < 1e13
        assert device.link <= device.bandwidth
        assert device.dtype in ("bfloat16", "float32")
        assert "." in device.source
        for price in device.prices:
            assert 0.1 < price.usd < 20
            assert date(2026, 1, 1) <= price.dated <= dated()
            assert price.provider
            assert "." in price.source


def test_devices_when_asked_for_a_price_then_it_is_the_lowest_or_none():
    h100 = devices()["h100"]
    assert h100.price is not None
    assert h100.price.usd == min(price.usd for price in h100.prices)
    assert devices()["mi300x"].price is None
    assert rented("mi300x").usd_per_hour is None


@pytest.mark.parametrize(
    ("text", "name", "gpus"),
    [("h100", "h100", 1), ("8xH100", "h100", 8), ("a100x2", "a100", 2), ("A100-40GB", "a100-40gb", 1), ("64 x b200", "b200", 64)],
)  # fmt: skip
def test_rented_when_written_as_people_do_then_understood(text, name, gpus):
    hire = rented(text)
    assert (hire.device.name, hire.gpus) == (name, gpus)
    assert hire.usd_per_hour == pytest.approx(gpus * hire.device.price.usd)


@pytest.mark.parametrize("text", ["", "h1000", "0xh100", "5000xh100", "-1xh100", "8x", "x"])
def test_rented_when_there_is_no_such_device_then_user_error_names_those_there_are(text):
    with pytest.raises(UserError, match="h100"):
        rented(text)


def test_link_when_cards_do_not_fit_one_machine_then_the_network_counts():
    h100 = devices()["h100"]
    assert h100.link_for(8) == 450e9
    assert h100.link_for(9) == 50e9
    assert devices()["rtx4090"].link_for(64) == 32e9
