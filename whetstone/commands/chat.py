"""`whetstone chat`: a talk with a model."""

from whetstone.commands.options import ChatTemplate, MaxTokens, MinP, ModelName, Temperature, TopK, TopP, Weights
from whetstone.commands.prompt_options import After, Before, Examples, System, ThinkAtAll
from whetstone.commands.thinking_options import BeamCount, Thinking, ThinkLeast, ThinkMost


def chat(
    model: ModelName,
    system: System = None,
    before: Before = None,
    after: After = None,
    examples: Examples = None,
    think: ThinkAtAll = None,
    temperature: Temperature = 0.6,
    max_tokens: MaxTokens = 512,
    top_p: TopP = 1.0,
    top_k: TopK = 0,
    min_p: MinP = 0.0,
    beams: BeamCount = 1,
    thinking: Thinking = "fold",
    think_most: ThinkMost = None,
    think_least: ThinkLeast = 0,
    seed: int = 0,
    chat_template: ChatTemplate = None,
    weights: Weights = "stored",
) -> None:
    """Talk with a model. Ctrl-C ends an answer, an empty line ends the chat. Lines can be piped in."""
    from whetstone.ask import Asking
    from whetstone.ask import chat as talk
    from whetstone.prompting import BARE, say_prompt
    from whetstone.records import Sampling
    from whetstone.run.prompt_settings import prompt_given

    sampling = Sampling(temperature, max_tokens, top_k, top_p, seed, min_p)
    asked = say_prompt(prompt_given(system, before, after, examples, think), model, unknown=BARE)
    asking = Asking(sampling, beams, 1.0, think_most, think_least, thinking, asked)

    from whetstone.decode.engine import load_engine
    from whetstone.model_template import open_model

    talk(load_engine(open_model(model, chat_template), thinking=asked.thinking, int8=weights == "int8"), asking)
