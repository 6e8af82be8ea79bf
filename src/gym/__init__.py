"""A Gymnasium loop of one-step environments (contextual bandits) with a Tandem policy.

with tandem.gym.Agent(env) as agent:
    for _ in range(2000):
        observation, _ = env.reset()
        action = agent.act(observation)
        _, reward, *_ = env.step(action)
        agent.learn(reward)
"""

from ..shared.errors import need_extra

need_extra("gymnasium", "tandem.gym", ("gymnasium",))

from .agent import Agent as Agent  # noqa: E402 - after the extra was asked for
