from masonite.broadcasting import Broadcast
from masonite.routes import Route

ROUTES = [
    Route.post("/releases", "NoticeController@release"),
    Route.post("/low-stock", "NoticeController@low_stock"),
    Route.post("/greet", "NoticeController@greet"),
    Route.post("/pusher/auth", "ChannelController@authorize"),
    *Broadcast.routes("/broadcasting/authorize"),
]
