"""What both servers say of the address at which they answer."""

import pytest

from feature_repo.server_options import describe_address


@pytest.mark.parametrize(
    ("protocol", "address", "text"),
    [
        ("http", "http://127.0.0.1:8081", "http at http://127.0.0.1:8081"),
        ("http", "https://shop.example:8081", "https at https://shop.example:8081"),
        ("flight", "grpc+tls://127.0.0.1:8815", "flight at grpc+tls://127.0.0.1:8815"),
    ],
)
def test_a_server_names_the_protocol_of_its_address(protocol: str, address: str, text: str) -> None:
    assert describe_address(protocol, address) == text
