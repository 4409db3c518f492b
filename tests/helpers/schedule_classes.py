"""Every schedule class of the package, exported or not."""

from importlib import import_module
from pkgutil import iter_modules

from instep import schedules

for module in iter_modules(schedules.__path__):
    import_module(f"instep.schedules.{module.name}")
CLASSES = [
    cls for cls in schedules.Schedule.__subclasses__() if cls.__module__.startswith("instep.")
]
