.PHONY: demo test long frameworks check soak real setup

demo: setup   ## the main job on the embedded default
	@scripts/demo

test: setup   ## the test suite
	@scripts/test

long: setup   ## at full length what the test suite shows in short: the tour with packages of its own, more kills
	@scripts/test -m long

frameworks:    ## notebooks for TensorFlow, PyTorch and Colab's Keras, each in an environment that pip makes in .frameworks/
	@scripts/frameworks

check: setup  ## formatting, lint, types
	@scripts/check

soak: setup   ## 50 random kills of a real training, and the drive's bad days; make soak KILLS=10 for fewer kills
	@scripts/soak $(KILLS)

real: setup   ## 80 public notebooks: where each stops; make real ONLY=5 for the first five
	@scripts/real $(if $(ONLY),--only $(ONLY))

setup:
	@scripts/setup
