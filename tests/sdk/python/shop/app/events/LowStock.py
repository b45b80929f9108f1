from masonite.broadcasting import CanBroadcast, PrivateChannel


class LowStock(CanBroadcast):
    def __init__(self, product, left):
        self.product = product
        self.left = left

    def broadcast_on(self):
        return PrivateChannel("admins")

    def broadcast_as(self):
        return "low-stock"
