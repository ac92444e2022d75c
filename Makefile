# make demo [BAG=recording RIG=name OUT=folder]   set up what is missing, play a drive through the node, and draw and score what came out
# make test [ARGS="-k name -x"]                   set up what is missing and run the tests, two files at a time (ARGS="-n 0": one process)
# make lint | format                              ruff and mypy | let ruff sort imports and mend what it can
# make venv                                       only set up: .venv with everything, messages included (again after changing msg/)
# make colcon                                     build as on a ROS machine, against the wheels in .venv, into install/
# make clean | clean-venv                         remove what was built and drawn | remove .venv

VENV := $(if $(DUALVIEW_VENV),$(DUALVIEW_VENV),$(CURDIR)/.venv)
PYTHON_IN_VENV := $(VENV)/bin/python

# Threads that wait for others sleep instead of spinning: beside other work on the same cores that is many times faster.
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: demo test lint format venv colcon clean clean-venv

demo: venv
	$(VENV)/bin/dualview demo $(if $(BAG),--bag "$(BAG)") $(if $(RIG),--rig "$(RIG)") $(if $(OUT),--out "$(OUT)") $(ARGS)

# A file's tests stay in one process, for what they share; each process computes in one thread, for the other one's sake.
test: venv
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(PYTHON_IN_VENV) -m pytest -n 2 --dist loadfile $(ARGS)

lint: venv
	$(PYTHON_IN_VENV) -m ruff check src test tools setup.py launch
	$(PYTHON_IN_VENV) -m mypy

format: venv
	$(PYTHON_IN_VENV) -m ruff check --fix src test tools setup.py launch

venv:
	@tools/bootstrap.sh

colcon: venv
	PATH="$(VENV)/bin:$$PATH" colcon build --symlink-install --packages-select dualview --cmake-args -G Ninja \
	  -DBUILD_TESTING=OFF -DPython3_EXECUTABLE=$(PYTHON_IN_VENV) -DCMAKE_PROJECT_INCLUDE=$(CURDIR)/cmake/ros_wheels.cmake

clean:
	rm -rf build install log out dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

clean-venv:
	rm -rf "$(VENV)" "$(VENV).lock"
