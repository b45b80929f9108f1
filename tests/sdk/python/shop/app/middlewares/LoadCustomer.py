from masonite.middleware import Middleware

CUSTOMERS = {
    "1": {"id": "1", "name": "Ada", "admin": True},
    "2": {"id": "2", "name": "Bob", "admin": False},
}


class LoadCustomer(Middleware):
    """Who asks: in a real shop this is the session; here it is a header."""

    def before(self, request, response):
        request.set_user(CUSTOMERS.get(request.environ.get("HTTP_X_CUSTOMER")))
        return request

    def after(self, request, response):
        return request
