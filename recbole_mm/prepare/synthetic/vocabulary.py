"""Words of the synthetic shop: topics, brands and the words that say nothing about taste."""

from __future__ import annotations

# One line per topic: the department, then the wordings a title may use.
_TOPIC_LINES = """
Protection: bumper case, slim case, hard shell case, silicone case, leather case, flip cover case
Protection: screen protector, tempered glass screen, privacy screen, screen guard, screen foil, screen shield
Protection: waterproof pouch, belt pouch, underwater pouch, running pouch, floating pouch, waist bag pouch
Power: wall charger, car charger, mains charger, wireless charger pad, travel charger, charger plug
Power: USB cable, data sync cable, braided cable, extension cable, cable lead, adapter cable
Power: power bank battery, portable battery, spare battery, lithium battery, solar battery, battery pack
Audio: wired earphones, stereo earphones, in-ear earphones, sport earphones, earphones buds, flat earphones
Audio: handsfree headset, mono headset, call headset, microphone headset, office headset, over-ear headset
Audio: bluetooth speaker, loud speaker, shower speaker, bass speaker, speaker dock, mini speaker box
Accessories: dashboard mount, windshield mount, vent mount, car holder mount, bicycle mount, magnetic mount
Accessories: selfie camera stick, camera tripod, camera lens, camera ring light, camera remote, wide angle camera
Accessories: memory card, microSD card, flash card, card reader, storage card, SD card adapter
""".strip().splitlines()  # noqa: E501

DEPARTMENTS: tuple[str, ...] = tuple(line.split(": ")[0] for line in _TOPIC_LINES)
WORDINGS: tuple[tuple[str, ...], ...] = tuple(
    tuple(line.split(": ")[1].split(", ")) for line in _TOPIC_LINES
)

BRANDS: tuple[str, ...] = tuple(
    "Norvik Caldera Lumetra Ostwind Pinecrest Quanto Ravello Sablon Tindra Umbrel Velora Westmark "
    "Xandia Yarrow Zephra Altona Brisco Corvia Dunmore Elara Fenwick Galdor Hestia Ivaro".split()
)
MANNERS: tuple[str, ...] = tuple(
    "premium compact lightweight durable universal classic original sturdy foldable handy "
    "professional upgraded".split()
)
DEVICES: tuple[str, ...] = tuple(
    "iPhone Galaxy Pixel Xperia smartphone tablet Android Nokia Motorola Huawei".split()
)
COLOURS: tuple[str, ...] = tuple("black white blue red silver green pink grey gold purple".split())
