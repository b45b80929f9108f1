from masonite.configuration import Configuration, config
from masonite.environment import LoadEnvironment
from masonite.middleware import EncryptCookies
from masonite.routes import Route
from masonite.utils.structures import load

from app.middlewares.LoadCustomer import LoadCustomer


class ShopKernel:
    def __init__(self, application):
        self.application = application

    def register(self):
        LoadEnvironment()
        self.application.bind("config.location", "config")
        configuration = Configuration(self.application)
        configuration.load()
        self.application.bind("config", configuration)
        self.application.bind("key", config("application.key"))
        self.application.make("middleware").add({"web": [EncryptCookies, LoadCustomer]})
        self.application.bind("controllers.location", "app.controllers")
        Route.set_controller_locations("app.controllers")
        self.application.bind("views.location", "templates")
        self.application.bind("routes.location", "routes/web")
        routes = load("routes.web", "ROUTES", [])
        self.application.make("router").add(Route.group(routes, middleware=["web"]))
