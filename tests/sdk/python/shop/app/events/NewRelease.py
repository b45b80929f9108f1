from masonite.broadcasting import CanBroadcast, Channel


class NewRelease(CanBroadcast):
    def __init__(self, version):
        self.version = version

    def broadcast_on(self):
        return Channel("releases")
