"""Demo data that is drawn, not downloaded: street scenes, road signs and vehicles with exact labels."""

from ppmtl.data.synthetic.bodies import vehicle_classes
from ppmtl.data.synthetic.dataset import Summary, make_dataset
from ppmtl.data.synthetic.portrait import render_vehicle
from ppmtl.data.synthetic.request import DemoRequest
from ppmtl.data.synthetic.roadsigns import render_signs
from ppmtl.data.synthetic.scene import render_street
from ppmtl.data.synthetic.signs import sign_names

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
