"""Demo data that is drawn, not downloaded: street scenes, road signs and vehicles with exact labels."""

from demo_data.bodies import vehicle_classes
from demo_data.dataset import Summary, make_dataset
from demo_data.portrait import render_vehicle
from demo_data.request import DemoRequest
from demo_data.roadsigns import render_signs
from demo_data.scene import render_street
from demo_data.signs import sign_names

__all__ = [
    "DemoRequest",
    "Summary",
    "make_dataset",
    "render_signs",
    "render_street",
    "render_vehicle",
    "sign_names",
    "vehicle_classes",
]
