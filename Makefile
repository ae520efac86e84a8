.PHONY: demo test check soak setup

demo: setup   ## the main job on the embedded default
	@scripts/demo

test: setup   ## the test suite
	@scripts/test

check: setup  ## formatting, lint, types
	@scripts/check

soak: setup   ## 50 random kills of a real training, and the drive's bad days; make soak KILLS=10 for fewer kills
	@scripts/soak $(KILLS)

setup:
	@scripts/setup
