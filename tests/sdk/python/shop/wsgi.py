"""A small Masonite shop that broadcasts, as in Masonite's guide."""

import os

from masonite.foundation import Application, Kernel

from config.providers import PROVIDERS
from Kernel import ShopKernel

application = Application(os.path.dirname(os.path.abspath(__file__)))
application.register_providers(Kernel, ShopKernel)
application.add_providers(*PROVIDERS)
