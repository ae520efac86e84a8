.PHONY: demo test check setup

demo: setup   ## the main job on the embedded default
	@scripts/demo

test: setup   ## the test suite
	@scripts/test

check: setup  ## formatting, lint, types
	@scripts/check

setup:
	@scripts/setup
