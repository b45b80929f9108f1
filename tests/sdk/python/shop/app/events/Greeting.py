from masonite.broadcasting import CanBroadcast, PresenceChannel


class Greeting(CanBroadcast):
    def __init__(self, text):
        self.text = text

    def broadcast_on(self):
        return PresenceChannel("lounge")
