"""An HTTP server over the engine of this process, with OpenAI's interface (`pip install 'ramify[serve]'`)."""
