from masonite.broadcasting import Broadcast
from masonite.controllers import Controller
from masonite.request import Request

from app.events.Greeting import Greeting
from app.events.LowStock import LowStock
from app.events.NewRelease import NewRelease


class NoticeController(Controller):
    def release(self, request: Request, broadcast: Broadcast):
        broadcast.channel(NewRelease(request.input("version")))
        broadcast.channel(["releases"], "ReleaseNote", {"text": "<b>see</b> the notes"})
        return {"sent": True}

    def low_stock(self, request: Request, broadcast: Broadcast):
        broadcast.channel(LowStock(request.input("product"), 3))
        return {"sent": True}

    def greet(self, request: Request, broadcast: Broadcast):
        broadcast.channel(Greeting(request.input("text")))
        return {"sent": True}
