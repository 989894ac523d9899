"""All that clients and servers share: the requests, and the replies to them."""
