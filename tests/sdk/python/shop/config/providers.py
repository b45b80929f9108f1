from masonite.providers import BroadcastProvider, ExceptionProvider, FrameworkProvider, RouteProvider, ViewProvider

PROVIDERS = [FrameworkProvider, RouteProvider, ViewProvider, ExceptionProvider, BroadcastProvider]
