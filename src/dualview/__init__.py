"""dualview: tracked 3D boxes and bird's-eye-view maps from the cameras of a vehicle."""

from pkgutil import extend_path

# In a development environment the generated dualview.msg lies in site-packages and everything else in this checkout: one package in
# two places. Where all is installed in one place this adds nothing.
__path__ = extend_path(__path__, __name__)
__version__ = "0.1.0"
