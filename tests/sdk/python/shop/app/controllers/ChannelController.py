from masonite.broadcasting import Broadcast
from masonite.controllers import Controller
from masonite.request import Request
from masonite.response import Response


class ChannelController(Controller):
    """The shop's own authorization: only admins on private-admins, customers
    on presence channels with their names."""

    def authorize(self, request: Request, response: Response, broadcast: Broadcast):
        channel, socket_id = request.input("channel_name"), request.input("socket_id")
        customer = request.user()
        if not customer or (channel == "private-admins" and not customer["admin"]):
            return response.json({"error": "not yours"}, 403)
        if channel.startswith("presence-"):
            pusher = broadcast.driver("pusher").get_connection()
            return pusher.authenticate(channel, socket_id, {"user_id": customer["id"], "user_info": {"name": customer["name"]}})
        return broadcast.driver("pusher").authorize(channel, socket_id)
